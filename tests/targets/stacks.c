// Allocates from 10,000 functions, hence from 10,000 stacks: how long does symbolizing take?
#include "ground_truth.h"

SITE(site_stacks);

#define DEFINE(number)                                             \
  static SITE_FUNCTION void stack_##number(void) {                 \
    if (!malloc(24)) abort();                                      \
    NOT_A_TAIL_CALL();                                             \
  }
#define CALL(number) stack_##number();

#define TEN(what, n) what(n##0) what(n##1) what(n##2) what(n##3) what(n##4) \
                     what(n##5) what(n##6) what(n##7) what(n##8) what(n##9)
#define HUNDRED(what, n) TEN(what, n##0) TEN(what, n##1) TEN(what, n##2) TEN(what, n##3) TEN(what, n##4) \
                         TEN(what, n##5) TEN(what, n##6) TEN(what, n##7) TEN(what, n##8) TEN(what, n##9)
#define THOUSAND(what, n) \
  HUNDRED(what, n##0) HUNDRED(what, n##1) HUNDRED(what, n##2) HUNDRED(what, n##3) HUNDRED(what, n##4) \
  HUNDRED(what, n##5) HUNDRED(what, n##6) HUNDRED(what, n##7) HUNDRED(what, n##8) HUNDRED(what, n##9)
#define TEN_THOUSAND(what) \
  THOUSAND(what, 0) THOUSAND(what, 1) THOUSAND(what, 2) THOUSAND(what, 3) THOUSAND(what, 4) \
  THOUSAND(what, 5) THOUSAND(what, 6) THOUSAND(what, 7) THOUSAND(what, 8) THOUSAND(what, 9)

TEN_THOUSAND(DEFINE)

static SITE_FUNCTION void site_stacks(void) {
  TEN_THOUSAND(CALL)
  site_stacks_totals.bytes = site_stacks_totals.allocated_bytes = 10000 * 24;
  site_stacks_totals.objects = site_stacks_totals.allocated_objects = 10000;
}

int main(void) {
  say("ready");
  await_line();
  site_stacks();
  tell_truth(1);
  return 0;
}
