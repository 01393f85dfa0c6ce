package main

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how much later than asked the kernel may end a sleep of this
// process (prctl(2), PR_SET_TIMERSLACK). Heartbeats go by timerfds, which have no
// slack. See docs/adr/0030-timer-slack.md.
const timerSlack = time.Millisecond

// relaxTimers gives the slack to all threads there are; those to come inherit
// it. Others than the calling one take a right (CAP_SYS_NICE) that an agent of
// the package lacks, whose unit says it (TimerSlackNSec). Without it the agent
// only costs more, so what fails is let be.
func relaxTimers() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0)
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, thread := range threads {
		// The file is not in the thread's own folder, but is there under its number.
		f, err := os.OpenFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"), os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		_, _ = f.WriteString(strconv.FormatInt(int64(timerSlack), 10))
		_ = f.Close()
	}
}
