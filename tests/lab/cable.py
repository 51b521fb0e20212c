"""A bad cable: carries frames between two network cards, late and not all of them.

``python cable.py CARD CARD --delay-ms 200 --loss 0.2`` prints ``up`` once it carries, and ends with its input. For
kernels without netem. Frames go through with the kernel's own notes about them (``PACKET_VNET_HDR``), so that large
segments and checksums that a network card would fill in stay what they are. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import random
import select
import socket
import sys
import time

#: linux/if_packet.h, linux/if_ether.h
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3

#: A frame as large as offloading makes it, and the notes in front.
_MAX_BYTES = 2**16 + 64


def _card(name: str) -> socket.socket:
    card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    card.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    card.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    card.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**23)
    card.bind((name, _ETH_P_ALL))
    card.setblocking(False)
    return card


def _take(card: socket.socket) -> list[bytes]:
    frames: list[bytes] = []
    with contextlib.suppress(OSError):  # nothing more, or the card is gone
        while True:
            frames.append(card.recv(_MAX_BYTES))
    return frames


def carry(names: tuple[str, str], *, delay_s: float, loss: float, seed: int) -> None:
    """Carry frames both ways until standard input ends."""
    first, second = map(_card, names)
    other = {first: second, second: first}
    chance, serial = random.Random(seed), itertools.count()
    under_way: list[tuple[float, int, socket.socket, bytes]] = []
    sys.stdout.write("up\n")
    sys.stdout.flush()
    while True:
        wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select([first, second, sys.stdin], [], [], wait_s)
        if sys.stdin in readable:
            return
        for card in (each for each in (first, second) if each in readable):
            for frame in _take(card):
                if chance.random() >= loss:
                    heapq.heappush(under_way, (time.monotonic() + delay_s, next(serial), other[card], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, card, frame = heapq.heappop(under_way)
            with contextlib.suppress(OSError):  # the other end is full or gone: one more frame is lost
                card.send(frame)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Carry frames between two network cards, badly.")
    parser.add_argument("cards", nargs=2)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0, help="share of frames that are lost")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    carry(tuple(given.cards), delay_s=given.delay_ms / 1e3, loss=given.loss, seed=given.seed)
