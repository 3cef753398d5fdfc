"""What the threads of the engine agree on: ordered loads and stores, and one mutex.

Readers take no lock.  A table that they read is either written in place under a
sequence number (fdb.pxd) or replaced as a whole: the new one is published with
`store_pointer`, and the old one is freed when no thread can still see it (tables.pxd).
"""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #include <pthread.h>
    #define load_u32(at) __atomic_load_n((at), __ATOMIC_ACQUIRE)
    #define store_u32(at, value) __atomic_store_n((at), (value), __ATOMIC_RELEASE)
    #define load_u64(at) __atomic_load_n((at), __ATOMIC_ACQUIRE)
    #define store_u64(at, value) __atomic_store_n((at), (value), __ATOMIC_RELEASE)
    #define load_pointer(at) ((void *)__atomic_load_n((void **)(at), __ATOMIC_ACQUIRE))
    #define store_pointer(at, value) __atomic_store_n((void **)(at), (void *)(value), __ATOMIC_RELEASE)
    #define full_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    #define read_fence() __atomic_thread_fence(__ATOMIC_ACQUIRE)
    #define write_fence() __atomic_thread_fence(__ATOMIC_RELEASE)
    """
    uint32_t load_u32(uint32_t *at) noexcept nogil
    void store_u32(uint32_t *at, uint32_t value) noexcept nogil
    uint64_t load_u64(uint64_t *at) noexcept nogil
    void store_u64(uint64_t *at, uint64_t value) noexcept nogil
    void *load_pointer(void *at) noexcept nogil
    void store_pointer(void *at, void *value) noexcept nogil
    void full_fence() noexcept nogil
    void read_fence() noexcept nogil
    void write_fence() noexcept nogil

    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes) noexcept nogil
    int pthread_mutex_lock(pthread_mutex_t *mutex) noexcept nogil
    int pthread_mutex_unlock(pthread_mutex_t *mutex) noexcept nogil
    int pthread_mutex_destroy(pthread_mutex_t *mutex) noexcept nogil
