#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* A token is hundreds of calls with up to half a millisecond of norms and Python between them: a thread that slept at
 * each would wake too late. With a tenth of these spins a token took a third longer (7B shape, Q4_0, 2 cores). */
enum { SPINS = 40000, PATIENCE = 4000, ALIGNMENT = 64, PART_BITS = 24, OUTER = 2 };
#define MOST_PARTS ((1ULL << PART_BITS) - 1)

typedef struct {
    void *data;
    size_t nbytes;
} workspace;

struct llmrun_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    atomic_uint call;    /* counts up with every call; what the threads wait for */
    atomic_ullong ticket; /* of the call that runs: its number, how many parts it has, the part to be taken next */
    atomic_long done;    /* parts of it that are finished */
    atomic_int threads_named;
    llmrun_task task;
    void *context;
    int helpers;
    int ends;
    workspace *workspaces; /* the shared one, the outer one, the outermost one, and one a thread */
    pthread_t threads[];
};

/* Who takes a part has exchanged a ticket of the call that runs, which cannot end before that part is done: so a thread
 * that wakes late does no harm, and nobody waits for one that has no part. */
static void take_parts(llmrun_pool *pool, int thread) {
    unsigned long long ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    while ((ticket & MOST_PARTS) < (ticket >> PART_BITS & MOST_PARTS)) {
        if (!atomic_compare_exchange_weak_explicit(
                &pool->ticket, &ticket, ticket + 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        pool->task(pool->context, (long)(ticket & MOST_PARTS), thread);
        atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

/* On a busy machine the thread that has the last part may not be running: let it. */
static void wait_for_parts(llmrun_pool *pool, long parts) {
    for (int spin = 0; atomic_load_explicit(&pool->done, memory_order_acquire) < parts; spin++) {
        RELAX();
        if (spin >= PATIENCE) sched_yield();
    }
}

static unsigned wait_for_call(llmrun_pool *pool, unsigned seen) {
    unsigned call;
    for (int spin = 0; spin < SPINS; spin++) {
        if ((call = atomic_load_explicit(&pool->call, memory_order_acquire)) != seen) return call;
        RELAX();
    }
    pthread_mutex_lock(&pool->mutex);
    while ((call = atomic_load_explicit(&pool->call, memory_order_acquire)) == seen)
        pthread_cond_wait(&pool->work, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
    return call;
}

static void *help(void *argument) {
    llmrun_pool *pool = argument;
    int thread = atomic_fetch_add(&pool->threads_named, 1) + 1;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_call(pool, seen);
        if (pool->ends) return NULL;
        take_parts(pool, thread);
    }
}

static void begin_call(llmrun_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->call, 1, memory_order_release);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}

llmrun_pool *llmrun_pool_new(int threads) {
    int helpers = threads > 1 ? threads - 1 : 0;
    llmrun_pool *pool = calloc(1, sizeof *pool + (size_t)helpers * sizeof(pthread_t));
    if (!pool) return NULL;
    pool->workspaces = calloc((size_t)helpers + 1 + OUTER, sizeof *pool->workspaces);
    if (!pool->workspaces) {
        free(pool);
        return NULL;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    while (pool->helpers < helpers && !pthread_create(&pool->threads[pool->helpers], NULL, help, pool)) pool->helpers++;
    return pool;
}

void llmrun_pool_free(llmrun_pool *pool) {
    if (!pool) return;
    pool->ends = 1;
    begin_call(pool);
    for (int i = 0; i < pool->helpers; i++) pthread_join(pool->threads[i], NULL);
    for (int i = 0; i < pool->helpers + 1 + OUTER; i++) free(pool->workspaces[i].data);
    free(pool->workspaces);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

int llmrun_pool_threads(const llmrun_pool *pool) { return pool->helpers + 1; }

void llmrun_pool_run(llmrun_pool *pool, llmrun_task task, void *context, long parts) {
    if (!pool->helpers || parts < 2 || parts > (long)MOST_PARTS) {
        for (long part = 0; part < parts; part++) task(context, part, 0);
        return;
    }
    unsigned long long call = atomic_load_explicit(&pool->call, memory_order_relaxed) + 1;
    pool->task = task;
    pool->context = context;
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    atomic_store_explicit(
        &pool->ticket, call << 2 * PART_BITS | (unsigned long long)parts << PART_BITS, memory_order_release);
    begin_call(pool);
    take_parts(pool, 0);
    wait_for_parts(pool, parts);
}

static void *grow(workspace *space, size_t nbytes) {
    if (nbytes <= space->nbytes) return space->data;
    size_t rounded = (nbytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    free(space->data);
    space->data = aligned_alloc(ALIGNMENT, rounded);
    space->nbytes = space->data ? rounded : 0;
    return space->data;
}

void *llmrun_pool_workspace(llmrun_pool *pool, int thread, size_t nbytes) {
    return grow(&pool->workspaces[OUTER + thread], nbytes);
}

void *llmrun_pool_shared(llmrun_pool *pool, size_t nbytes) { return grow(&pool->workspaces[0], nbytes); }

void *llmrun_pool_outer(llmrun_pool *pool, size_t nbytes) { return grow(&pool->workspaces[1], nbytes); }
