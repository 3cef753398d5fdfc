"""Large tables of which little is used: memory that costs only what was touched.

calloc gives that too, at first.  Once the C library has seen a large block freed it hands
such blocks out again, cleared by hand, and then every page of them is resident for ever.
So these tables are the kernel's own zero pages, and go back to it when they are freed.
"""

from libc.stddef cimport size_t

cdef extern from *:
    """
    #include <sys/mman.h>
    static void *fastpath_pages(size_t size)
    {
        void *found = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return found == MAP_FAILED ? NULL : found;
    }
    """
    void *pages_new "fastpath_pages"(size_t size) noexcept nogil
    int munmap(void *pages, size_t size) noexcept nogil


cdef inline void pages_free(void *pages, size_t size) noexcept nogil:
    """Give back what `pages_new` gave, with its size in bytes; NULL is nothing."""
    if pages != NULL:
        munmap(pages, size)
