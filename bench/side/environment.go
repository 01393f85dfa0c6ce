package side

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An Environment is where the figures come from.
type Environment struct {
	Date      string `json:"date"`
	Kernel    string `json:"kernel"`
	CPU       string `json:"cpu"`
	CPUs      int    `json:"cpus"`
	MemoryMiB int    `json:"memory_mib"`
	Go        string `json:"go"`
	Commit    string `json:"commit"`
}

// Surroundings are those of now; the commit is that of the working directory.
func Surroundings(ctx context.Context) Environment {
	e := Environment{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), CPUs: runtime.NumCPU(), Go: runtime.Version(),
		Kernel: "Linux " + firstLine("/proc/sys/kernel/osrelease"), CPU: "unknown", Commit: "no commit",
	}
	if model := field("/proc/cpuinfo", "model name"); model != "" {
		e.CPU = model
	}
	e.MemoryMiB = kibibytes(field("/proc/meminfo", "MemTotal")) >> 10
	if text, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		e.Commit = "commit " + strings.TrimSpace(string(text))
		if text, _ := exec.CommandContext(ctx, "git", "status", "--porcelain", "-uno").Output(); len(text) > 0 {
			e.Commit += " and changes"
		}
	}
	return e
}

// LoadAverage is that of 1, 5 and 15 minutes.
func LoadAverage() string {
	fields := strings.Fields(firstLine("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// ResidentKiB is what a process has in memory; 0 if it is gone.
func ResidentKiB(pid int) int {
	return kibibytes(field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"))
}

// tick is the unit of times in /proc/PID/stat; 100 Hz on every Linux (proc(5), USER_HZ).
const tick = 10 * time.Millisecond

// ProcessorTime is what this process and others have used so far; a process
// that is gone counts nothing.
func ProcessorTime(others []int) time.Duration {
	var self syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &self)
	sum := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	for _, pid := range others {
		// The name, in parentheses, may have blanks; user and system time are
		// the 12th and 13th field after it.
		line := firstLine(fmt.Sprintf("/proc/%d/stat", pid))
		if f := strings.Fields(line[strings.LastIndex(line, ")")+1:]); len(f) > 12 {
			user, _ := strconv.Atoi(f[11])
			system, _ := strconv.Atoi(f[12])
			sum += time.Duration(user+system) * tick
		}
	}
	return sum
}

func kibibytes(s string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(s, " kB"))
	return n
}

func firstLine(file string) string {
	text, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// field is the value of "name: value" in a file of /proc; empty if it is not there.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
