"""Runs the end-to-end tests: `python3 tests/e2e [PATTERN…]`, all or those whose name contains a pattern.

Prints the ten slowest, then `N passed, N failed` as the last line. There are no skipped tests: what cannot run, fails.
"""
import pathlib
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import bridge  # noqa: E402  (found by the line above)


class Result(unittest.TextTestResult):
    """Counts, and remembers how long each test took."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.passed, self.times = 0, []

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        self.times.append((time.monotonic() - self.began, test.id()))
        super().stopTest(test)

    def addSuccess(self, test):
        self.passed += 1
        super().addSuccess(test)

    def addSkip(self, test, reason):
        self.addFailure(test, (AssertionError, AssertionError(f"skipped: {reason}"), None))

    def getDescription(self, test):
        return test.id()


def tests_of(suite):
    """All tests of a suite, flat."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


def main():
    """Runs what was asked for; 0 if all passed."""
    # unittest takes SystemExit for a failed test; after KeyboardInterrupt it stops.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    patterns = sys.argv[1:]
    if not bridge.BINARY.is_file():
        sys.exit(f"{bridge.BINARY} is missing: cargo build --release, or set BRIDGE")
    suite = unittest.defaultTestLoader.discover(str(pathlib.Path(__file__).resolve().parent))
    chosen = [t for t in tests_of(suite) if not patterns or any(p in t.id() for p in patterns)]
    if not chosen:
        sys.exit(f"no end-to-end test has a name with {' or '.join(patterns)}")
    try:
        runner = unittest.TextTestRunner(verbosity=2, resultclass=Result, buffer=False, stream=sys.stdout)
        result = runner.run(unittest.TestSuite(chosen))
    except KeyboardInterrupt:
        print("\ninterrupted")
        return 130
    finally:
        bridge.close_all()
    print("\nslowest:")
    for seconds, name in sorted(result.times, reverse=True)[:10]:
        print(f"  {seconds:7.2f} s  {name}")
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"{result.passed} passed, {failed} failed", flush=True)
    return 1 if failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
