/* A libnvidia-ml.so.1 with no GPU behind it: what nvidia-ml-py asks for on muster's behalf, answered from a text file.
 *
 * MUSTER_STUB_NVML names the file; it is read anew at each call, so that a test can change what the cards say while a
 * program is looking. A line is NAME VALUE. Names: gpu.N.FIELD for card N, system.FIELD, and fail.FUNCTION with the
 * number that FUNCTION is to return in place of an answer. A field that is not there is "not supported".
 *
 * The functions' names, arguments and numbers are those of NVML's public interface as nvidia-ml-py declares them.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, UNKNOWN = 999 };
enum { CARDS = 4 };

typedef unsigned long long u64;
typedef void *handle_t;

static int lookup(const char *name, char *value, size_t size) {
  const char *path = getenv("MUSTER_STUB_NVML");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[512];
  int found = 0;
  if (!file) return 0;
  while (fgets(line, sizeof line, file)) {
    char *space = strchr(line, ' ');
    if (!space) continue;
    *space = 0;
    if (strcmp(line, name) == 0) {
      space[1 + strcspn(space + 1, "\n")] = 0;
      snprintf(value, size, "%s", space + 1);
      found = 1;
    }
  }
  fclose(file);
  return found;
}

static int failure(const char *function) {
  char name[256], value[512];
  snprintf(name, sizeof name, "fail.%s", function);
  return lookup(name, value, sizeof value) ? atoi(value) : SUCCESS;
}

#define MAY_FAIL do { int code = failure(__func__); if (code) return code; } while (0)

static int card_of(handle_t handle) { return (int)(long)handle - 1; }

static int text(handle_t handle, const char *field, char *value, size_t size) {
  char name[256];
  int card = card_of(handle);
  if (card < 0 || card >= CARDS) return INVALID_ARGUMENT;
  snprintf(name, sizeof name, "gpu.%d.%s", card, field);
  return lookup(name, value, size) ? SUCCESS : NOT_SUPPORTED;
}

static int number(handle_t handle, const char *field, u64 *answer) {
  char value[512];
  int code = text(handle, field, value, sizeof value);
  if (code == SUCCESS) *answer = strtoull(value, NULL, 0);
  return code;
}

static int small(handle_t handle, const char *field, unsigned *answer) {
  u64 wide = 0;
  int code = number(handle, field, &wide);
  if (code == SUCCESS) *answer = (unsigned)wide;
  return code;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; MAY_FAIL; return SUCCESS; }
int nvmlShutdown(void) { MAY_FAIL; return SUCCESS; }

const char *nvmlErrorString(int code) {
  switch (code) {
    case SUCCESS: return "Success";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case TIMEOUT: return "Timeout";
    case 15: return "GPU is lost";
    default: return "Unknown Error";
  }
}

static int system_text(const char *name, char *value, unsigned size) {
  return lookup(name, value, size) ? SUCCESS : NOT_SUPPORTED;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) { MAY_FAIL; return system_text("system.driver", version, length); }

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  char value[64];
  MAY_FAIL;
  if (!lookup("system.cuda", value, sizeof value)) return NOT_SUPPORTED;
  *version = atoi(value);
  return SUCCESS;
}
int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

int nvmlDeviceGetCount_v2(unsigned *count) { MAY_FAIL; *count = CARDS; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t *handle) {
  MAY_FAIL;
  if (index >= CARDS) return INVALID_ARGUMENT;
  *handle = (handle_t)(long)(index + 1);
  return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, handle_t *handle) {
  char value[512];
  MAY_FAIL;
  for (int card = 0; card < CARDS; card++) {
    *handle = (handle_t)(long)(card + 1);
    if (text(*handle, "uuid", value, sizeof value) == SUCCESS && strcmp(uuid, value) == 0) return SUCCESS;
  }
  return NOT_FOUND;
}

int nvmlDeviceGetUUID(handle_t h, char *uuid, unsigned length) { MAY_FAIL; return text(h, "uuid", uuid, length); }
int nvmlDeviceGetName(handle_t h, char *name, unsigned length) { MAY_FAIL; return text(h, "name", name, length); }
int nvmlDeviceGetVbiosVersion(handle_t h, char *version, unsigned length) { MAY_FAIL; return text(h, "vbios", version, length); }

struct memory { u64 total, free, used; };
int nvmlDeviceGetMemoryInfo(handle_t h, struct memory *memory) {
  int code;
  MAY_FAIL;
  code = number(h, "memory_total", &memory->total);
  if (code == SUCCESS) code = number(h, "memory_used", &memory->used);
  memory->free = memory->total - memory->used;
  return code;
}

struct utilization { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(handle_t h, struct utilization *use) {
  int code;
  MAY_FAIL;
  code = small(h, "use", &use->gpu);
  return code ? code : small(h, "memory_use", &use->memory);
}

struct pci { char legacy[16]; unsigned domain, bus, device, pci_device, pci_subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(handle_t h, struct pci *pci) {
  MAY_FAIL;
  memset(pci, 0, sizeof *pci);
  return text(h, "bus_id", pci->bus_id, sizeof pci->bus_id);
}

static const char *clock_field(const char *prefix, unsigned kind, char *field, size_t size) {
  snprintf(field, size, "%s%s", kind == 2 ? "memory_" : "", prefix); /* 1 is SM, 2 is memory */
  return field;
}
int nvmlDeviceGetClockInfo(handle_t h, unsigned kind, unsigned *mhz) { char f[64]; MAY_FAIL; return small(h, clock_field("clock", kind, f, sizeof f), mhz); }
int nvmlDeviceGetMaxClockInfo(handle_t h, unsigned kind, unsigned *mhz) { char f[64]; MAY_FAIL; return small(h, clock_field("clock_max", kind, f, sizeof f), mhz); }
int nvmlDeviceGetApplicationsClock(handle_t h, unsigned kind, unsigned *mhz) { char f[64]; MAY_FAIL; return small(h, clock_field("clock_application", kind, f, sizeof f), mhz); }

int nvmlDeviceGetTemperature(handle_t h, unsigned sensor, unsigned *celsius) { (void)sensor; MAY_FAIL; return small(h, "temperature", celsius); }
int nvmlDeviceGetPowerUsage(handle_t h, unsigned *mw) { MAY_FAIL; return small(h, "power_mw", mw); }
int nvmlDeviceGetTotalEnergyConsumption(handle_t h, u64 *mj) { MAY_FAIL; return number(h, "energy_mj", mj); }
int nvmlDeviceGetPowerManagementLimit(handle_t h, unsigned *mw) { MAY_FAIL; return small(h, "power_limit_mw", mw); }
int nvmlDeviceGetPowerManagementDefaultLimit(handle_t h, unsigned *mw) { MAY_FAIL; return small(h, "power_limit_default_mw", mw); }
int nvmlDeviceGetEnforcedPowerLimit(handle_t h, unsigned *mw) { MAY_FAIL; return small(h, "power_limit_mw", mw); }
int nvmlDeviceGetCurrentClocksEventReasons(handle_t h, u64 *reasons) { MAY_FAIL; return number(h, "reasons", reasons); }
int nvmlDeviceGetCurrentClocksThrottleReasons(handle_t h, u64 *reasons) { MAY_FAIL; return number(h, "reasons", reasons); }
int nvmlDeviceGetPersistenceMode(handle_t h, unsigned *mode) { MAY_FAIL; return small(h, "persistence", mode); }
int nvmlDeviceGetMaxPcieLinkGeneration(handle_t h, unsigned *gen) { MAY_FAIL; return small(h, "pcie_generation", gen); }
int nvmlDeviceGetMaxPcieLinkWidth(handle_t h, unsigned *width) { MAY_FAIL; return small(h, "pcie_width", width); }

int nvmlDeviceGetEccMode(handle_t h, unsigned *current, unsigned *pending) {
  MAY_FAIL;
  *pending = 0;
  return small(h, "ecc", current);
}
int nvmlDeviceGetMigMode(handle_t h, unsigned *current, unsigned *pending) {
  MAY_FAIL;
  *pending = 0;
  return small(h, "mig", current);
}
int nvmlDeviceGetCudaComputeCapability(handle_t h, int *major, int *minor) {
  u64 both = 0;
  int code;
  MAY_FAIL;
  code = number(h, "capability", &both);
  *major = (int)(both / 10);
  *minor = (int)(both % 10);
  return code;
}
int nvmlDeviceGetTotalEccErrors(handle_t h, unsigned kind, unsigned counter, u64 *count) {
  (void)counter;
  MAY_FAIL;
  return number(h, kind ? "ecc_uncorrected" : "ecc_corrected", count);
}

/* Processes are written PID:BYTES, with commas between. */
struct process { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; };
static int processes(handle_t h, const char *field, unsigned *count, struct process *found) {
  char value[512];
  unsigned known = 0;
  if (text(h, field, value, sizeof value) == SUCCESS) {
    for (char *rest = NULL, *one = strtok_r(value, ",", &rest); one; one = strtok_r(NULL, ",", &rest), known++) {
      if (found && known < *count) {
        char *colon = strchr(one, ':');
        found[known].pid = (unsigned)strtoul(one, NULL, 10);
        found[known].memory = colon ? strtoull(colon + 1, NULL, 10) : ~0ULL;
        found[known].gpu_instance = found[known].compute_instance = ~0U;
      }
    }
  }
  int fits = found ? known <= *count : known == 0;
  *count = known;
  return fits ? SUCCESS : INSUFFICIENT_SIZE;
}
int nvmlDeviceGetComputeRunningProcesses_v3(handle_t h, unsigned *count, struct process *found) { MAY_FAIL; return processes(h, "computing", count, found); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(handle_t h, unsigned *count, struct process *found) { MAY_FAIL; return processes(h, "drawing", count, found); }

/* One event for each new value of gpu.N.xid. */
struct set { handle_t card; char told[512]; };
int nvmlEventSetCreate(handle_t *set) { MAY_FAIL; *set = calloc(1, sizeof(struct set)); return SUCCESS; }
int nvmlDeviceRegisterEvents(handle_t h, u64 kinds, handle_t set) {
  struct set *mine = set;
  (void)kinds;
  MAY_FAIL;
  mine->card = h;
  text(h, "xid", mine->told, sizeof mine->told);
  return SUCCESS;
}
struct event { handle_t device; u64 type, data; unsigned gpu_instance, compute_instance; };
int nvmlEventSetWait_v2(handle_t set, struct event *event, unsigned timeout_ms) {
  struct set *mine = set;
  char value[512];
  (void)timeout_ms;
  MAY_FAIL;
  if (text(mine->card, "xid", value, sizeof value) != SUCCESS || strcmp(value, mine->told) == 0) return TIMEOUT;
  snprintf(mine->told, sizeof mine->told, "%s", value);
  memset(event, 0, sizeof *event);
  event->device = mine->card;
  event->type = 8;
  event->data = strtoull(value, NULL, 10);
  return SUCCESS;
}
int nvmlEventSetFree(handle_t set) { MAY_FAIL; free(set); return SUCCESS; }
