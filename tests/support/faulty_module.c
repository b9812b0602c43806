/* A PKCS#11 module in front of SoftHSM. It answers as SoftHSM does, and adds a letter to $FAULTY_MODULE/logins for each
   login. What a signature meets is the first letter of $FAULTY_MODULE/fault. The function list has a version and 68
   pointers in the order of the standard; those that are changed are C_Login and C_Sign. */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef unsigned long ulong_t;
typedef struct { unsigned char version[2]; void *function[68]; } list_t;
typedef ulong_t (*sign_t)(ulong_t, unsigned char *, ulong_t, unsigned char *, ulong_t *);
typedef ulong_t (*login_t)(ulong_t, ulong_t, unsigned char *, ulong_t);
enum { LOGIN = 18, SIGN = 43 };
enum { DEVICE_ERROR = 0x30, SESSION_HANDLE_INVALID = 0xB3 };

static list_t ours, *theirs;

static int opened(const char *name, int flags) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("FAULTY_MODULE"), name);
    return open(path, flags);
}

static ulong_t login(ulong_t session, ulong_t user, unsigned char *pin, ulong_t length) {
    int file = opened("logins", O_WRONLY | O_APPEND);
    if (write(file, "x", 1) != 1) abort();
    close(file);
    return ((login_t)theirs->function[LOGIN])(session, user, pin, length);
}

static ulong_t sign(ulong_t session, unsigned char *data, ulong_t size, unsigned char *made, ulong_t *length) {
    char fault = 'w';
    int file = opened("fault", O_RDONLY);
    if (read(file, &fault, 1) != 1) abort();
    close(file);
    if (fault == 'h') for (;;) pause();
    if (fault == 'c') raise(SIGSEGV);
    if (fault == 'e') return DEVICE_ERROR;
    if (fault == 'f') return SESSION_HANDLE_INVALID;
    if (fault == 's' && made != NULL) usleep(1500000); /* without a buffer it is asked for the length alone */
    ulong_t result = ((sign_t)theirs->function[SIGN])(session, data, size, made, length);
    if (fault == 'l' && result == 0 && made != NULL) made[10] ^= 1;
    return result;
}

ulong_t C_GetFunctionList(list_t **list) {
    void *library = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
    ulong_t (*get)(list_t **) = (ulong_t (*)(list_t **))dlsym(library, "C_GetFunctionList");
    ulong_t result = get(&theirs);
    if (result != 0) return result;
    ours = *theirs;
    ours.function[LOGIN] = (void *)login;
    ours.function[SIGN] = (void *)sign;
    *list = &ours;
    return 0;
}
