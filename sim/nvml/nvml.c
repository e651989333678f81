/* A stand-in libnvidia-ml.so.1: GPUs that exist only in one mmap'ed file, named by GRIDPIVOT_SIM_NVML_STATE.
 *
 * An unmodified NVML client loads it through LD_LIBRARY_PATH. What it does not implement is absent, so that clients
 * meet the same "function not found" as with an old driver. Names and numbers are those of NVIDIA's public nvml.h.
 *
 * Physics: power runs after min(enforced limit, idle + load x (max - idle)) with time constant tau_s; energy is its
 * exact integral. Under a clock lock the part above idle goes with the square of the clock (made up: voltage falls too). Whoever looks first brings the whole file up to the present under its lock; since the exponential
 * is exact over any step, it makes no difference who looks, or how often. sim/nvml/state.py describes the same layout.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { MAGIC = 0x4c4d5647, LAYOUT = 2 };

/* Return codes of nvml.h that this library gives. */
enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15,
};

/* Calls that can be made to fail one by one: index into device.call_error, value = the return code. */
enum { POWER, ENERGY, LIMIT, ENFORCED, CONSTRAINTS, DEFAULT, SET, UTIL, TEMP, MEMORY, CLOCK, REASONS, PSTATE,
       PERSISTENCE, NAME, HEALTH, CALLS = 16 };

enum { REASON_IDLE = 1, REASON_SW_POWER_CAP = 4 };
enum { LEAST_MHZ = 210, MOST_MHZ = 1980, STEP_MHZ = 15, MEMORY_MHZ = 2619 }; /* H100 SXM: nvidia-smi -q -d SUPPORTED_CLOCKS */

typedef struct {
    uint32_t magic, layout;
    _Atomic uint32_t lock;    /* pid of the holder, 0 = free */
    uint32_t count;           /* GPUs that enumerate; lowering it takes the last ones off the bus */
    uint32_t init_error;      /* what nvmlInit returns */
    uint32_t stall_ms;        /* every power reading waits this long: a driver that hangs */
    uint32_t generation;      /* raised by one = driver reload: limits to default, energy from zero */
    uint32_t total;           /* GPUs in the file, whether or not they enumerate */
    double tau_s, advanced_at_s; /* time constant; CLOCK_MONOTONIC of the present state */
    char driver[32];
} header;

typedef struct {
    char uuid[64], name[64];
    double load, idle_w, max_w; /* load 0..1 */
    double power_w, energy_j;   /* true, now */
    uint32_t limit_mw, min_mw, max_mw, default_mw;
    uint32_t cap_mw;            /* the board enforces this if it is lower than the limit, 0 = none */
    uint32_t lost;              /* fell off the bus: every call says so */
    uint32_t ignores_set;       /* set returns success and changes nothing */
    uint32_t generation;        /* the header's, as last seen */
    uint32_t call_error[CALLS];
    uint32_t xids, xid;         /* critical errors so far, the newest one's number */
    uint32_t ecc_corrected, ecc_uncorrected; /* since the board was made */
    uint32_t remapped_corrected, remapped_uncorrected, remap_pending, remap_failed; /* rows of memory */
    uint32_t mig;               /* 1 = cut into instances: utilisation of the whole is not told */
    uint32_t lock_mhz;          /* highest clock while locked, 0 = not locked */
} device;

typedef struct { unsigned long long total, free, used; } memory_info;
typedef struct { unsigned gpu, memory; } utilization;

_Static_assert(sizeof(header) == 80 && sizeof(device) == 304, "the layout that sim/nvml/state.py declares");

static header *state;
static unsigned references;

/* ---- shared state ------------------------------------------------------------------------------------------- */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static device *devices(header *h) { return (device *)(h + 1); }

static double enforced_w(const device *d)
{
    uint32_t mw = d->cap_mw && d->cap_mw < d->limit_mw ? d->cap_mw : d->limit_mw;
    return 1e-3 * (double)mw;
}

static double clock_ratio(const device *d) { return d->lock_mhz ? (double)d->lock_mhz / MOST_MHZ : 1.0; }

static double wanted_w(const device *d)
{
    return d->idle_w + d->load * (d->max_w - d->idle_w) * clock_ratio(d) * clock_ratio(d);
}

static void advance(header *h)
{
    double now = now_s(), elapsed = now - h->advanced_at_s;
    if (elapsed < 0.0) elapsed = 0.0;
    double decay = exp(-elapsed / h->tau_s);
    for (unsigned i = 0; i < h->total; i++) {
        device *d = devices(h) + i;
        double goal = fmax(d->idle_w, fmin(wanted_w(d), enforced_w(d)));
        d->energy_j += goal * elapsed + (d->power_w - goal) * h->tau_s * (1.0 - decay);
        d->power_w = goal + (d->power_w - goal) * decay;
        if (d->generation != h->generation) {
            d->generation = h->generation;
            d->limit_mw = d->default_mw;
            d->lock_mhz = 0;
            d->energy_j = 0.0;
        }
    }
    h->advanced_at_s = now;
}

/* Takes the lock and brings the state up to the present. A holder that died is succeeded, not waited for. */
EXPORT void gridpivot_sim_lock(header *h)
{
    uint32_t me = (uint32_t)getpid(), holder = 0;
    for (unsigned tries = 1; !atomic_compare_exchange_weak(&h->lock, &holder, me); tries++) {
        if (tries % 1024 == 0 && holder && kill((pid_t)holder, 0) != 0 && errno == ESRCH &&
            atomic_compare_exchange_strong(&h->lock, &holder, me))
            break;
        sched_yield();
        holder = 0;
    }
    advance(h);
}

EXPORT void gridpivot_sim_unlock(header *h) { atomic_store(&h->lock, 0); }

static int map_state(void)
{
    const char *path = getenv("GRIDPIVOT_SIM_NVML_STATE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat info;
    if (fd < 0) return DRIVER_NOT_LOADED;
    if (fstat(fd, &info) != 0 || (size_t)info.st_size < sizeof(header)) { close(fd); return DRIVER_NOT_LOADED; }
    header *h = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (h == MAP_FAILED) return DRIVER_NOT_LOADED;
    if (h->magic != MAGIC || h->layout != LAYOUT) { munmap(h, (size_t)info.st_size); return DRIVER_NOT_LOADED; }
    state = h;
    return OK;
}

/* ---- the library ---------------------------------------------------------------------------------------------- */

EXPORT int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int rc = state ? OK : map_state();
    if (rc == OK) rc = (int)state->init_error;
    if (rc == OK) references++;
    return rc;
}

EXPORT int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT int nvmlShutdown(void)
{
    if (!references) return UNINITIALIZED;
    references--; /* the mapping stays: a handle is a pointer into it */
    return OK;
}

EXPORT const char *nvmlErrorString(int result)
{
    switch (result) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

static int copy_text(const char *from, char *to, unsigned length)
{
    if (strlen(from) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return OK;
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    return references ? copy_text(state->driver, version, length) : UNINITIALIZED;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *count)
{
    if (!references) return UNINITIALIZED;
    *count = state->count;
    return OK;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **handle)
{
    if (!references) return UNINITIALIZED;
    if (index >= state->count) return INVALID_ARGUMENT;
    if (devices(state)[index].lost) return GPU_IS_LOST;
    *handle = devices(state) + index;
    return OK;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, device **handle)
{
    if (!references) return UNINITIALIZED;
    for (unsigned i = 0; i < state->count; i++)
        if (strcmp(devices(state)[i].uuid, uuid) == 0) return nvmlDeviceGetHandleByIndex_v2(i, handle);
    return NOT_FOUND;
}

/* ---- one device ------------------------------------------------------------------------------------------------ */

/* On success the state is locked and up to the present, and the caller unlocks it. */
static int enter(const device *d, int call)
{
    if (!references) return UNINITIALIZED;
    if (d < devices(state) || d >= devices(state) + state->total) return INVALID_ARGUMENT;
    if (call == POWER && state->stall_ms)
        nanosleep(&(struct timespec){state->stall_ms / 1000, (long)(state->stall_ms % 1000) * 1000000L}, NULL);
    gridpivot_sim_lock(state);
    int rc = d->lost || d >= devices(state) + state->count ? GPU_IS_LOST : (int)d->call_error[call];
    if (rc != OK) gridpivot_sim_unlock(state);
    return rc;
}

#define READ(call, statement)                    \
    do {                                         \
        int rc_ = enter(d, call);                \
        if (rc_ != OK) return rc_;               \
        statement;                               \
        gridpivot_sim_unlock(state);             \
        return OK;                               \
    } while (0)

EXPORT int nvmlDeviceGetUUID(device *d, char *uuid, unsigned length)
{
    int rc = enter(d, NAME);
    if (rc != OK) return rc;
    gridpivot_sim_unlock(state);
    return copy_text(d->uuid, uuid, length);
}

EXPORT int nvmlDeviceGetName(device *d, char *name, unsigned length)
{
    int rc = enter(d, NAME);
    if (rc != OK) return rc;
    gridpivot_sim_unlock(state);
    return copy_text(d->name, name, length);
}

EXPORT int nvmlDeviceGetPowerUsage(device *d, unsigned *mw) { READ(POWER, *mw = (unsigned)lrint(1e3 * d->power_w)); }

EXPORT int nvmlDeviceGetTotalEnergyConsumption(device *d, unsigned long long *mj)
{
    READ(ENERGY, *mj = (unsigned long long)(1e3 * d->energy_j));
}

EXPORT int nvmlDeviceGetPowerManagementLimit(device *d, unsigned *mw) { READ(LIMIT, *mw = d->limit_mw); }

EXPORT int nvmlDeviceGetEnforcedPowerLimit(device *d, unsigned *mw)
{
    READ(ENFORCED, *mw = (unsigned)lrint(1e3 * enforced_w(d)));
}

EXPORT int nvmlDeviceGetPowerManagementDefaultLimit(device *d, unsigned *mw) { READ(DEFAULT, *mw = d->default_mw); }

EXPORT int nvmlDeviceGetPowerManagementLimitConstraints(device *d, unsigned *least_mw, unsigned *most_mw)
{
    READ(CONSTRAINTS, (*least_mw = d->min_mw, *most_mw = d->max_mw));
}

EXPORT int nvmlDeviceSetPowerManagementLimit(device *d, unsigned mw)
{
    int rc = enter(d, SET);
    if (rc != OK) return rc;
    if (mw < d->min_mw || mw > d->max_mw) rc = INVALID_ARGUMENT;
    else if (!d->ignores_set) d->limit_mw = mw;
    gridpivot_sim_unlock(state);
    return rc;
}

EXPORT int nvmlDeviceGetUtilizationRates(device *d, utilization *u)
{
    if (references && d->mig) return NOT_SUPPORTED;
    READ(UTIL, (u->gpu = (unsigned)lrint(100.0 * d->load), u->memory = u->gpu / 2));
}

EXPORT int nvmlDeviceGetTemperature(device *d, int sensor, unsigned *celsius)
{
    if (sensor != 0) return INVALID_ARGUMENT;
    READ(TEMP, *celsius = (unsigned)lrint(30.0 + 45.0 * d->power_w / d->max_w));
}

EXPORT int nvmlDeviceGetMemoryInfo(device *d, memory_info *m)
{
    const unsigned long long total = 80ULL << 30;
    READ(MEMORY, (m->total = total, m->used = (unsigned long long)(0.9 * d->load * (double)total),
                  m->free = m->total - m->used));
}

/* Under a cap the clock falls roughly with the cube root of what is allowed. */
EXPORT int nvmlDeviceGetClockInfo(device *d, int type, unsigned *mhz)
{
    if (type == 2) READ(CLOCK, *mhz = MEMORY_MHZ);
    READ(CLOCK, *mhz = (unsigned)lrint(MOST_MHZ * clock_ratio(d) * cbrt(fmin(1.0, enforced_w(d) / wanted_w(d)))));
}

/* Root only; locks end with a driver reload. Nothing tells a lock back: the clock under load is its evidence. */
EXPORT int nvmlDeviceSetGpuLockedClocks(device *d, unsigned least_mhz, unsigned most_mhz)
{
    int rc = enter(d, SET);
    if (rc != OK) return rc;
    if (least_mhz < LEAST_MHZ || most_mhz > MOST_MHZ || least_mhz > most_mhz) rc = INVALID_ARGUMENT;
    else if (!d->ignores_set) d->lock_mhz = most_mhz;
    gridpivot_sim_unlock(state);
    return rc;
}

EXPORT int nvmlDeviceResetGpuLockedClocks(device *d)
{
    int rc = enter(d, SET);
    if (rc != OK) return rc;
    if (!d->ignores_set) d->lock_mhz = 0;
    gridpivot_sim_unlock(state);
    return rc;
}

EXPORT int nvmlDeviceGetSupportedMemoryClocks(device *d, unsigned *count, unsigned *mhz)
{
    unsigned room = *count;
    *count = 1;
    if (room < 1 || !mhz) return INSUFFICIENT_SIZE;
    READ(CLOCK, mhz[0] = MEMORY_MHZ);
}

EXPORT int nvmlDeviceGetSupportedGraphicsClocks(device *d, unsigned memory_mhz, unsigned *count, unsigned *mhz)
{
    unsigned room = *count;
    if (memory_mhz != MEMORY_MHZ) return NOT_FOUND;
    *count = (MOST_MHZ - LEAST_MHZ) / STEP_MHZ + 1;
    if (room < *count || !mhz) return INSUFFICIENT_SIZE;
    READ(CLOCK, for (unsigned i = 0; i < *count; i++) mhz[i] = MOST_MHZ - i * STEP_MHZ);
}

EXPORT int nvmlDeviceGetCurrentClocksEventReasons(device *d, unsigned long long *reasons)
{
    READ(REASONS, *reasons = d->load <= 0.0 ? REASON_IDLE : wanted_w(d) > enforced_w(d) ? REASON_SW_POWER_CAP : 0);
}

EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(device *d, unsigned long long *reasons)
{
    return nvmlDeviceGetCurrentClocksEventReasons(d, reasons);
}

EXPORT int nvmlDeviceGetMaxClockInfo(device *d, int type, unsigned *mhz)
{
    READ(CLOCK, *mhz = type == 2 ? MEMORY_MHZ : MOST_MHZ);
}

EXPORT int nvmlDeviceGetTotalEccErrors(device *d, int type, int counter, unsigned long long *count)
{
    (void)counter;
    READ(HEALTH, *count = type ? d->ecc_uncorrected : d->ecc_corrected);
}

EXPORT int nvmlDeviceGetRemappedRows(device *d, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                                     unsigned *failed)
{
    READ(HEALTH, (*corrected = d->remapped_corrected, *uncorrected = d->remapped_uncorrected,
                  *pending = d->remap_pending, *failed = d->remap_failed));
}

EXPORT int nvmlDeviceGetMigMode(device *d, unsigned *current, unsigned *pending)
{
    READ(HEALTH, (*current = d->mig, *pending = d->mig));
}

/* ---- critical errors as events ------------------------------------------------------------------------------------ */

enum { EVENT_XID = 8, MOST_WATCHED = 64 };
typedef struct { device *watched[MOST_WATCHED]; uint32_t seen[MOST_WATCHED]; unsigned count; } event_set;
typedef struct { device *d; unsigned long long type, data; unsigned gpu_instance, compute_instance; } event_data;

EXPORT int nvmlEventSetCreate(event_set **set)
{
    if (!references) return UNINITIALIZED;
    *set = calloc(1, sizeof(event_set));
    return *set ? OK : INSUFFICIENT_SIZE;
}

EXPORT int nvmlEventSetFree(event_set *set)
{
    free(set);
    return OK;
}

EXPORT int nvmlDeviceRegisterEvents(device *d, unsigned long long types, event_set *set)
{
    if (!(types & EVENT_XID) || set->count == MOST_WATCHED) return NOT_SUPPORTED;
    READ(HEALTH, (set->watched[set->count] = d, set->seen[set->count++] = d->xids));
}

EXPORT int nvmlEventSetWait_v2(event_set *set, event_data *data, unsigned timeout_ms)
{
    if (!references) return UNINITIALIZED;
    for (unsigned waited = 0;; waited++) {
        for (unsigned i = 0; i < set->count; i++) {
            device *d = set->watched[i];
            if (set->seen[i] == d->xids) continue;
            set->seen[i]++;
            *data = (event_data){d, EVENT_XID, d->xid, 0xFFFFFFFF, 0xFFFFFFFF};
            return OK;
        }
        if (waited >= timeout_ms) return TIMEOUT;
        nanosleep(&(struct timespec){0, 1000000L}, NULL);
    }
}

EXPORT int nvmlDeviceGetPerformanceState(device *d, int *pstate) { READ(PSTATE, *pstate = d->load > 0.0 ? 0 : 8); }

EXPORT int nvmlDeviceGetPersistenceMode(device *d, int *mode) { READ(PERSISTENCE, *mode = 1); }
