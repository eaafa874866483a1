// Preloaded, takes so many keys of thread-specific values that those of the program lie in a second
// block.
#include <pthread.h>

__attribute__((constructor)) static void take_keys(void) {
    for (int taken = 0; taken < 40; taken++) {
        pthread_key_t key;
        pthread_key_create(&key, 0);
    }
}
