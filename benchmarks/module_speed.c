/* How many RS256 signatures a second a PKCS#11 module makes by itself: module_speed MODULE TOKEN PIN LABEL THREADS SECONDS.
   One session a thread. It prints the number. Built with the header of Debian's libp11-kit-dev. */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static CK_FUNCTION_LIST_PTR module;
static CK_SLOT_ID slot;
static char *label;
static double stop_at;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void need(CK_RV result, const char *what) {
    if (result != CKR_OK) {
        fprintf(stderr, "%s: 0x%lx\n", what, result);
        exit(1);
    }
}

static void *sign(void *counted) {
    long *count = counted;
    CK_SESSION_HANDLE session;
    need(module->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session), "open");
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, label, strlen(label)}};
    CK_OBJECT_HANDLE key;
    CK_ULONG found = 0;
    need(module->C_FindObjectsInit(session, wanted, 2), "find");
    need(module->C_FindObjects(session, &key, 1, &found), "find");
    need(module->C_FindObjectsFinal(session), "find");
    if (found != 1) exit(1);
    CK_MECHANISM mechanism = {CKM_SHA256_RSA_PKCS, NULL, 0};
    CK_BYTE message[400], made[512];
    memset(message, 'x', sizeof message);
    while (now() < stop_at) {
        CK_ULONG length = sizeof made;
        need(module->C_SignInit(session, &mechanism, key), "init");
        need(module->C_Sign(session, message, sizeof message, made, &length), "sign");
        ++*count;
    }
    return NULL;
}

int main(int words, char **word) {
    if (words != 7) return 2;
    void *library = dlopen(word[1], RTLD_NOW);
    CK_RV (*get)(CK_FUNCTION_LIST_PTR *) = (CK_RV(*)(CK_FUNCTION_LIST_PTR *))dlsym(library, "C_GetFunctionList");
    need(get(&module), "functions");
    CK_C_INITIALIZE_ARGS locks;
    memset(&locks, 0, sizeof locks);
    locks.flags = CKF_OS_LOCKING_OK;
    need(module->C_Initialize(&locks), "initialize");
    CK_SLOT_ID slots[16];
    CK_ULONG several = 16;
    need(module->C_GetSlotList(CK_TRUE, slots, &several), "slots");
    for (CK_ULONG nth = 0; nth < several; nth++) {
        CK_TOKEN_INFO info;
        need(module->C_GetTokenInfo(slots[nth], &info), "token");
        if (strncmp((char *)info.label, word[2], strlen(word[2])) == 0) slot = slots[nth];
    }
    CK_SESSION_HANDLE session;
    need(module->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session), "open");
    need(module->C_Login(session, CKU_USER, (CK_BYTE *)word[3], strlen(word[3])), "login");
    label = word[4];
    int threads = atoi(word[5]);
    pthread_t each[64];
    long counts[64] = {0}, sum = 0;
    if (threads < 1 || threads > 64) return 2;
    double began = now();
    stop_at = began + atof(word[6]);
    for (int nth = 0; nth < threads; nth++) pthread_create(&each[nth], NULL, sign, &counts[nth]);
    for (int nth = 0; nth < threads; nth++) {
        pthread_join(each[nth], NULL);
        sum += counts[nth];
    }
    printf("%.0f\n", sum / (now() - began));
    return 0;
}
