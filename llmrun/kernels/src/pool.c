#include "pool.h"

#include <pthread.h>
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

/* A token is a hundred calls with little between them: a thread that slept at each would wake too late. */
enum { SPINS = 4000, ALIGNMENT = 64 };

typedef struct {
    void *data;
    size_t nbytes;
} workspace;

struct llmrun_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    atomic_uint call; /* counts up with every call; what the threads wait for */
    atomic_long next; /* the part to be taken next */
    atomic_int busy;  /* helpers that may still look for parts of this call */
    atomic_int threads_named;
    llmrun_task task;
    void *context;
    long parts;
    int helpers;
    int ends;
    workspace *workspaces; /* one a thread, and the shared one */
    pthread_t threads[];
};

static void take_parts(llmrun_pool *pool, int thread) {
    long part;
    while ((part = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed)) < pool->parts)
        pool->task(pool->context, part, thread);
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
        atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
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
    pool->workspaces = calloc((size_t)helpers + 2, sizeof *pool->workspaces);
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
    for (int i = 0; i < pool->helpers + 2; i++) free(pool->workspaces[i].data);
    free(pool->workspaces);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

int llmrun_pool_threads(const llmrun_pool *pool) { return pool->helpers + 1; }

void llmrun_pool_run(llmrun_pool *pool, llmrun_task task, void *context, long parts) {
    pool->task = task;
    pool->context = context;
    pool->parts = parts;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    if (pool->helpers && parts > 1) {
        atomic_store_explicit(&pool->busy, pool->helpers, memory_order_relaxed);
        begin_call(pool);
        take_parts(pool, 0);
        while (atomic_load_explicit(&pool->busy, memory_order_acquire)) RELAX();
    } else {
        take_parts(pool, 0);
    }
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
    return grow(&pool->workspaces[1 + thread], nbytes);
}

void *llmrun_pool_shared(llmrun_pool *pool, size_t nbytes) { return grow(&pool->workspaces[0], nbytes); }
