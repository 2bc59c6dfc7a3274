/* A component enumerator extension for Azure Device Update's agent, contract 1.0 (component_enumerator_extension.hpp).
 *
 * It holds nothing and knows nothing of components: for each call it runs `proxyflash adu components`, and hands on what
 * that prints. How proxyflash is called says `proxyflash-adu.conf` beside this library, else /etc/proxyflash/adu.conf: a
 * word of the command on each line; empty lines and those that begin with # do not count.
 *
 * The rule that keeps the agent safe: every answer is a whole JSON document or NULL, in at most TIME_LIMIT seconds, and
 * nothing of the agent's own is touched. No signal handler, no environment, no descriptor that a child could keep, no
 * state but a mutex: calls at the same time wait for each other, since the bench is used by one at a time.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define BESIDE "proxyflash-adu.conf"
#define DEFAULT_CONF "/etc/proxyflash/adu.conf"
#ifndef TIME_LIMIT
#define TIME_LIMIT 60            /* seconds for one call, waiting for others among them */
#endif
#define MOST_BYTES (16u << 20)   /* of an answer */
#define MOST_CONF 65536          /* bytes of a configuration */
#define MOST_WORDS 64
#define MOST_DEPTH 64            /* of an answer's nesting */

typedef struct {
    unsigned int majorVer;
    unsigned int minorVer;
} ADUC_ExtensionContractInfo;

typedef struct {
    int32_t ResultCode;
    int32_t ExtendedResultCode;
} ADUC_Result;

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

/* Time. */

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* JSON (RFC 8259): whether a text is one whole object. What is wrong ends the walk with NULL. */

static const char *space(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
        at++;
    return at;
}

static const char *string(const char *at)
{
    if (*at++ != '"')
        return NULL;
    for (; *at != '"'; at++) {
        if ((unsigned char)*at < 0x20)
            return NULL; /* the end of the text too */
        if (*at == '\\') {
            at++;
            if (*at == 'u') {
                for (int digit = 0; digit < 4; digit++)
                    if (!strchr("0123456789abcdefABCDEF", *++at) || !*at)
                        return NULL;
            } else if (!*at || !strchr("\"\\/bfnrt", *at)) {
                return NULL;
            }
        }
    }
    return at + 1;
}

static const char *digits(const char *at)
{
    const char *first = at;
    while (*at >= '0' && *at <= '9')
        at++;
    return at == first ? NULL : at;
}

static const char *number(const char *at)
{
    if (*at == '-')
        at++;
    at = *at == '0' ? at + 1 : digits(at);
    if (at && *at == '.')
        at = digits(at + 1);
    if (at && (*at == 'e' || *at == 'E')) {
        at++;
        if (*at == '+' || *at == '-')
            at++;
        at = digits(at);
    }
    return at;
}

static const char *value(const char *at, int depth);

/* The members of an object, or the items of an array, behind the opening bracket. */
static const char *inside(const char *at, char closing, int depth)
{
    at = space(at);
    if (*at == closing)
        return at + 1;
    for (;;) {
        if (closing == '}') {
            at = string(space(at));
            if (!at)
                return NULL;
            at = space(at);
            if (*at++ != ':')
                return NULL;
        }
        at = value(at, depth);
        if (!at)
            return NULL;
        at = space(at);
        if (*at == closing)
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

static const char *value(const char *at, int depth)
{
    if (depth > MOST_DEPTH)
        return NULL;
    at = space(at);
    switch (*at) {
    case '{':
        return inside(at + 1, '}', depth + 1);
    case '[':
        return inside(at + 1, ']', depth + 1);
    case '"':
        return string(at);
    case 't':
        return strncmp(at, "true", 4) ? NULL : at + 4;
    case 'f':
        return strncmp(at, "false", 5) ? NULL : at + 5;
    case 'n':
        return strncmp(at, "null", 4) ? NULL : at + 4;
    default:
        return number(at);
    }
}

static bool is_object(const char *text)
{
    text = space(text);
    if (*text != '{')
        return false;
    text = value(text, 0);
    return text && !*space(text);
}

/* The configuration. */

static char *file_text(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (file < 0)
        return NULL;
    char *text = malloc(MOST_CONF + 1);
    size_t size = 0;
    while (text && size < MOST_CONF) {
        ssize_t got = read(file, text + size, MOST_CONF - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            free(text);
            text = NULL;
        }
        if (got <= 0)
            break;
        size += (size_t)got;
    }
    close(file);
    if (text)
        text[size] = '\0';
    return text;
}

static char *configuration(void)
{
    Dl_info here;
    if (dladdr((void *)configuration, &here) && here.dli_fname) {
        const char *slash = strrchr(here.dli_fname, '/');
        int folder = slash ? (int)(slash - here.dli_fname) + 1 : 0;
        char *path = NULL;
        if (asprintf(&path, "%.*s%s", folder, here.dli_fname, BESIDE) >= 0) {
            char *text = file_text(path);
            free(path);
            if (text)
                return text;
        }
    }
    return file_text(DEFAULT_CONF);
}

/* The words of a configuration, in its own text; how many. */
static int words_of(char *text, char **words)
{
    int count = 0;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && count < MOST_WORDS) {
        size_t length = strlen(line);
        if (length && line[length - 1] == '\r')
            line[length - 1] = '\0';
        if (*line && *line != '#')
            words[count++] = line;
    }
    return count;
}

/* The command. */

/* Starts it in a process group of its own, its output in a pipe; the pipe's end, or -1. */
static int start(char **words, pid_t *child)
{
    static char *const environment[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -1;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGINT);
    sigaddset(&usual, SIGTERM);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGCHLD);
    int failed = posix_spawn_file_actions_init(&files);
    if (!failed) {
        failed = posix_spawnattr_init(&attributes);
        if (!failed) {
            failed = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0) ||
                     posix_spawn_file_actions_adddup2(&files, ends[1], 1) ||
                     posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                               POSIX_SPAWN_SETSIGDEF) ||
                     posix_spawnattr_setpgroup(&attributes, 0) || posix_spawnattr_setsigmask(&attributes, &none) ||
                     posix_spawnattr_setsigdefault(&attributes, &usual) ||
                     posix_spawn(child, words[0], &files, &attributes, words, environment);
            posix_spawnattr_destroy(&attributes);
        }
        posix_spawn_file_actions_destroy(&files);
    }
    close(ends[1]);
    if (failed) {
        close(ends[0]);
        return -1;
    }
    return ends[0];
}

/* Everything that comes until the other end closes; NULL when that takes too long, or is too much. */
static char *everything(int end, int64_t until)
{
    size_t size = 0, room = 4096;
    char *text = malloc(room + 1);
    while (text) {
        int64_t left = until - now();
        struct pollfd wait = {.fd = end, .events = POLLIN};
        int ready = left > 0 ? poll(&wait, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t got = ready > 0 ? read(end, text + size, room - size) : -1;
        if (ready > 0 && got < 0 && errno == EINTR)
            continue;
        if (got == 0) {
            text[size] = '\0';
            return strlen(text) == size ? text : (free(text), NULL);
        }
        if (got < 0 || size + (size_t)got > MOST_BYTES)
            break;
        size += (size_t)got;
        if (size == room) {
            char *more = realloc(text, 2 * room + 1);
            if (!more)
                break;
            text = more;
            room *= 2;
        }
    }
    free(text);
    return NULL;
}

/* Waits for the child's end. 0: it ended well, or the agent ignores SIGCHLD, so that the kernel keeps no status. */
static bool ended_well(pid_t child, int64_t until)
{
    for (;;) {
        int status;
        pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child)
            return WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (ended < 0 && errno == ECHILD)
            return true;
        if (ended < 0 && errno != EINTR)
            return false;
        if (now() >= until) {
            kill(-child, SIGKILL);
            while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;
            return false;
        }
        /* Its output has ended, so it is about to. */
        struct timespec moment = {.tv_nsec = 2000000};
        nanosleep(&moment, NULL);
    }
}

static char *answer_of(char **words, int64_t until)
{
    pid_t child;
    int end = start(words, &child);
    if (end < 0)
        return NULL;
    char *text = everything(end, until);
    close(end);
    if (!text)
        kill(-child, SIGKILL);
    bool well = ended_well(child, until);
    if (text && (!well || !is_object(text))) {
        free(text);
        text = NULL;
    }
    return text;
}

static char *ask(const char *selector)
{
    int64_t until = now() + TIME_LIMIT * 1000;
    struct timespec limit;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += TIME_LIMIT;
    if (pthread_mutex_clocklock(&one_at_a_time, CLOCK_MONOTONIC, &limit))
        return NULL;
    char *answer = NULL;
    char *text = configuration();
    if (text) {
        char *words[MOST_WORDS + 5] = {NULL};
        int count = words_of(text, words);
        if (count) {
            words[count++] = "adu";
            words[count++] = "components";
            if (selector) {
                words[count++] = "--select";
                words[count] = (char *)selector;
            }
            answer = answer_of(words, until);
        }
        free(text);
    }
    pthread_mutex_unlock(&one_at_a_time);
    return answer;
}

/* The contract. */

EXPORTED char *GetAllComponents(void)
{
    return ask(NULL);
}

EXPORTED char *SelectComponents(const char *selectorJson)
{
    return selectorJson && is_object(selectorJson) ? ask(selectorJson) : NULL;
}

EXPORTED void FreeComponentsDataString(char *string)
{
    free(string);
}

EXPORTED ADUC_Result GetContractInfo(ADUC_ExtensionContractInfo *info)
{
    if (info) {
        info->majorVer = 1;
        info->minorVer = 0;
    }
    ADUC_Result result = {.ResultCode = info != NULL, .ExtendedResultCode = 0};
    return result;
}
