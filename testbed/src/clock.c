/* A clock that a test sets. Preloaded into a server, it adds the seconds that the file PG_MASK_CLOCK holds to the
 * system's time wherever PostgreSQL asks for it, which it does by gettimeofday (timestamp.c, GetCurrentTimestamp),
 * and pg_mask, which asks for the second by time. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    const char *path = getenv("PG_MASK_CLOCK");
    FILE *file = path ? fopen(path, "r") : NULL;
    struct timespec exact;
    long long ahead = 0;

    (void) zone;
    if (file) {
        if (fscanf(file, "%lld", &ahead) != 1)
            ahead = 0;
        fclose(file);
    }
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec + ahead;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *second)
{
    struct timeval now;

    gettimeofday(&now, NULL);
    if (second)
        *second = now.tv_sec;
    return now.tv_sec;
}
