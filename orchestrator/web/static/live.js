// Brings the page up to date: fields whose text has changed, once a second at most. What is drawn, the server draws.
"use strict";

const live = document.getElementById("live");
const link = document.getElementById("link");
let source = null;

function setFields(place, fields) {
  for (const [name, value] of Object.entries(fields)) {
    const found = place.querySelector(`[data-field="${name}"]`);
    if (found) found.textContent = value;
  }
}

function setDevice(device, fields) {
  if ("activity" in fields) device.dataset.activity = fields.activity;
  const bar = device.querySelector("progress");
  if ("max_steps" in fields) bar.max = fields.max_steps;
  if ("step" in fields) bar.value = fields.step;
  setFields(device, fields);
}

function setRun(run, change) {
  const bar = run.querySelector('[data-bar="run"]');
  if ("total" in change) bar.max = change.total || 1;
  if ("done" in change) bar.value = change.done;
  setFields(run.querySelector(".facts"), change);
  if ("failures" in change) {
    const items = (change.failures.length ? change.failures : ["none so far"]).map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    });
    run.querySelector('[data-list="failures"]').replaceChildren(...items);
  }
  for (const [number, fields] of Object.entries(change.devices || {})) {
    const device = run.querySelector(`[data-device="${number}"]`);
    if (device) setDevice(device, fields);
  }
}

async function drawAnew(structure) {
  const answer = await fetch("/now/region", { headers: { accept: "text/html" } });
  if (!answer.ok || answer.redirected) {
    location.reload();
    return;
  }
  const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
  live.replaceChildren(...parsed.body.childNodes);
  live.dataset.structure = structure;
}

let queue = Promise.resolve();

async function take(data) {
  if (data.problem) {
    link.textContent = data.problem;
    return;
  }
  if (data.structure !== live.dataset.structure) {
    // What was drawn may be older than what follows: begin again from there.
    source.close();
    await drawAnew(data.structure);
    listen();
    return;
  }
  for (const [id, change] of Object.entries(data.runs)) {
    const run = live.querySelector(`[data-run="${CSS.escape(id)}"]`);
    if (run) setRun(run, change);
  }
  live.dataset.updates = String(Number(live.dataset.updates || 0) + 1);
}

function listen() {
  source = new EventSource(`/now/events?shown=${encodeURIComponent(live.dataset.structure)}`);
  source.onopen = () => { link.textContent = "live"; };
  source.onerror = () => { link.textContent = "the server does not answer; trying again"; };
  source.onmessage = (message) => { queue = queue.then(() => take(JSON.parse(message.data))); };
}

listen();
