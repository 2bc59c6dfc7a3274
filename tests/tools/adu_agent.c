/* What Azure Device Update's agent does with a component enumerator: dlopen, look the four symbols up, call, free.
 *
 *     adu_agent LIBRARY all | select SELECTOR | null | threads COUNT | ignoring SELECTOR | contract
 *
 * Prints the answer, or NULL; exit status 0 unless the library is not what it should be, or has left a descriptor open.
 */

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned int majorVer, minorVer; } Info;
typedef struct { int32_t ResultCode, ExtendedResultCode; } Result;

static char *(*all)(void);
static char *(*selected)(const char *);
static void (*freed)(char *);
static Result (*contract)(Info *);

static int descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void told(char *answer)
{
    puts(answer ? answer : "NULL");
    if (answer)
        freed(answer);
}

static void *called(void *number)
{
    char *answer = (intptr_t)number % 2 ? all() : selected("{\"group\": \"radars\"}");
    intptr_t size = answer ? (intptr_t)strlen(answer) : 0;
    freed(answer);
    return (void *)size;
}

int main(int count, char **words)
{
    void *library = dlopen(words[1], RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    *(void **)&all = dlsym(library, "GetAllComponents");
    *(void **)&selected = dlsym(library, "SelectComponents");
    *(void **)&freed = dlsym(library, "FreeComponentsDataString");
    *(void **)&contract = dlsym(library, "GetContractInfo");
    if (!all || !selected || !freed || !contract)
        return 3;
    int before = descriptors();
    const char *verb = words[2], *argument = count > 3 ? words[3] : NULL;
    if (!strcmp(verb, "all")) {
        told(all());
    } else if (!strcmp(verb, "select")) {
        told(selected(argument));
    } else if (!strcmp(verb, "null")) {
        told(selected(NULL));
        freed(NULL);
    } else if (!strcmp(verb, "ignoring")) {
        signal(SIGCHLD, SIG_IGN);
        told(selected(argument));
    } else if (!strcmp(verb, "contract")) {
        Info info = {7, 7};
        Result result = contract(&info);
        printf("%u.%u %d %d\n", info.majorVer, info.minorVer, result.ResultCode, result.ExtendedResultCode);
        if (contract(NULL).ResultCode != 0)
            return 4;
    } else {
        int threads = atoi(argument);
        pthread_t started[64];
        for (intptr_t number = 0; number < threads; number++)
            pthread_create(&started[number], NULL, called, (void *)number);
        for (int number = 0; number < threads; number++) {
            void *size;
            pthread_join(started[number], &size);
            printf("%d\n", (int)(intptr_t)size);
        }
    }
    return descriptors() == before ? 0 : 5;
}
