// Jobs that may throw. A line on standard input is a command: `job BYTES` keeps so many bytes, `throw
// BYTES` keeps them and is left by an exception. Each is answered by "done".
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

static void *volatile kept[4096];
static unsigned last;

namespace app {

class Worker {
public:
	// Without a jump at its end, whose function would return in its stead.
	__attribute__((noinline, optimize("no-optimize-sibling-calls"))) int run(std::size_t bytes, bool fails)
	{
		kept[last++ % 4096] = std::malloc(bytes);
		if (fails)
			throw std::runtime_error("as asked for");
		std::puts("kept");
		return 1;
	}

	__attribute__((noinline)) int run(const char *bytes)
	{
		return run(std::strtoul(bytes, nullptr, 10), false) + 1;
	}
};

} // namespace app

int main()
{
	char line[128], command[16];
	std::size_t bytes;
	app::Worker worker;

	std::setvbuf(stdout, nullptr, _IOLBF, 0);
	std::puts("ready");
	while (std::fgets(line, sizeof(line), stdin)) {
		if (std::sscanf(line, "%15s %zu", command, &bytes) != 2)
			break;
		try {
			if (std::strcmp(command, "text") == 0)
				worker.run(line + 5);
			else
				worker.run(bytes, std::strcmp(command, "throw") == 0);
		} catch (const std::runtime_error &) {
		}
		std::puts("done");
	}
}
