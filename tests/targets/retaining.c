// The library that Python servers call: `retaining.h`, and nothing else.
#include "retaining.h"
