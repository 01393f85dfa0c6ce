package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// An environment is where the figures come from.
type environment struct {
	Date      string `json:"date"`
	Kernel    string `json:"kernel"`
	CPU       string `json:"cpu"`
	CPUs      int    `json:"cpus"`
	MemoryMiB int    `json:"memory_mib"`
	Go        string `json:"go"`
	Commit    string `json:"commit"`
}

func surroundings(ctx context.Context) environment {
	e := environment{
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

// loadAverage is that of 1, 5 and 15 minutes.
func loadAverage() string {
	fields := strings.Fields(firstLine("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// residentKiB is what a process has in memory; 0 if it is gone.
func residentKiB(pid int) int {
	return kibibytes(field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"))
}

// processorTime is what all threads of a process have used so far, to the
// nanosecond (proc(5), schedstat); the ticks of /proc/PID/stat are too coarse
// for a node that uses 10 ms in a minute.
func processorTime(pid int) (sum time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, thread := range threads {
		used, _, _ := strings.Cut(firstLine(thread), " ")
		n, _ := strconv.ParseInt(used, 10, 64)
		sum += time.Duration(n)
	}
	return sum
}

// loopback is what the loopback interface of this network namespace has sent:
// IP packets and their bytes.
func loopback() (traffic, error) {
	value := field("/proc/net/dev", "lo")
	f := strings.Fields(value)
	if len(f) < 10 {
		return traffic{}, fmt.Errorf("/proc/net/dev: no counters of lo in %q", value)
	}
	bytes, err := strconv.Atoi(f[8])
	if err != nil {
		return traffic{}, fmt.Errorf("/proc/net/dev: %w", err)
	}
	packets, err := strconv.Atoi(f[9])
	if err != nil {
		return traffic{}, fmt.Errorf("/proc/net/dev: %w", err)
	}
	return traffic{Packets: packets, Bytes: bytes}, nil
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
