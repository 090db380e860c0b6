"""What holds for every test: the signals a terminal sends mean what they mean to people.

A test run that was started in the background, or under nohup, ignores SIGINT or SIGHUP, and so would everything the
tests start (`man 2 execve`: ignored signals stay ignored).
"""

import signal

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
