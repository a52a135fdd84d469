/* A few threads that wait for work: each call hands out the parts of one task until none is left. */
#ifndef LLMRUN_POOL_H
#define LLMRUN_POOL_H

#include <stddef.h>

#include "llmrun.h"

/* thread: 0 .. threads-1, the one that runs this part. */
typedef void (*llmrun_task)(void *context, long part, int thread);

/* Runs task(context, 0 .. parts-1), each once, on all threads; returns when all are done. One call at a time. */
void llmrun_pool_run(llmrun_pool *pool, llmrun_task task, void *context, long parts);

/* Memory of one thread, or (shared) of the call: 64-byte aligned, undefined at first, and valid until the same is asked
 * for more; it is kept for later calls. NULL: there is none. A thread may ask for its own within a task; ask for the
 * shared one only outside of tasks. */
void *llmrun_pool_workspace(llmrun_pool *pool, int thread, size_t nbytes);
void *llmrun_pool_shared(llmrun_pool *pool, size_t nbytes);
/* The same, for what calls functions that ask for the shared one. */
void *llmrun_pool_outer(llmrun_pool *pool, size_t nbytes);

#endif
