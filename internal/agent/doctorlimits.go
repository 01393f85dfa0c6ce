package agent

import (
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// wantFiles is how many files an agent is to open at most: each watched
// process, connection and stream takes one.
const wantFiles = 65536

// limits judges those of the running agent.
func (d doctor) limits() findings {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	for _, n := range status.GetNodes() {
		if n.GetSelf() && n.GetPid() != 0 {
			return processLimits(os.DirFS("/proc"), n.GetPid())
		}
	}
	return findings{{Level: LevelUnknown, Text: "the agent does not tell its process; restart it, it is of an older version"}}
}

// processLimits judges a process by its files below proc (proc(5)).
func processLimits(proc fs.FS, pid uint32) (found findings) {
	dir := strconv.FormatUint(uint64(pid), 10)
	data, err := fs.ReadFile(proc, path.Join(dir, "limits"))
	if err != nil {
		found.add(LevelUnknown, "%v; run belfry doctor on the machine of the agent, outside of containers", err)
		return found
	}
	soft := softLimits(string(data))
	files, core, locked := soft["Max open files"], soft["Max core file size"], soft["Max locked memory"]
	if n, err := strconv.ParseUint(files, 10, 64); files != unlimited && (err != nil || n < wantFiles) {
		found.add(LevelWarning, "the agent can open %s files, %d are recommended; set LimitNOFILE=%d in its unit, or ulimit -n", files, wantFiles, wantFiles)
	}
	if core != "0" && !keepsMemory(proc, dir) {
		found.add(LevelWarning, "a core file with the agent's keys can be written (limit %s); set LimitCORE=0 in its unit, or ulimit -c 0", core)
	}
	return found.orElse("%s open files, %s bytes of locked memory, no core file", files, locked)
}

const unlimited = "unlimited"

// softLimits are the soft limits by name.
func softLimits(text string) map[string]string {
	const nameWidth = 26 // of the first column
	soft := map[string]string{}
	for line := range strings.Lines(text) {
		if len(line) <= nameWidth {
			continue
		}
		if fields := strings.Fields(line[nameWidth:]); len(fields) > 0 {
			soft[strings.TrimSpace(line[:nameWidth])] = fields[0]
		}
	}
	return soft
}

// keepsMemory tells whether no core file is written of a process because it
// can not be dumped: then root owns its files below /proc, whoever it runs as. Of
// a process of root it can not be seen.
func keepsMemory(proc fs.FS, dir string) bool {
	data, err := fs.ReadFile(proc, path.Join(dir, "status"))
	if err != nil {
		return false
	}
	info, err := fs.Stat(proc, path.Join(dir, "status"))
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	_, uids, _ := strings.Cut(string(data), "\nUid:\t")
	return ok && stat.Uid == 0 && uids != "" && !strings.HasPrefix(uids, "0\t")
}
