package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// etcds finds those of a script, by their address.
type etcds struct{}

// cmdEtcd starts a real etcd of one member, or stops it; it keeps its data:
//
//	etcd ADDRESS [stop] [FLAG...]
//
// With flags for TLS it is not waited for: the first command that uses it does.
func cmdEtcd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: etcd ADDRESS [stop] [FLAG...]")
	}
	address, flags := args[0], args[1:]
	running := ts.Value(etcds{}).(map[string]*family)
	if len(flags) == 1 && flags[0] == "stop" {
		ts.Check(running[address].stop())
		delete(running, address)
		return
	}
	dir := ts.MkAbs("etcd-" + address)
	scheme := "http"
	for _, f := range flags {
		if len(f) > len("--cert-file") && f[:len("--cert-file")] == "--cert-file" {
			scheme = "https"
		}
	}
	client, peer := scheme+"://"+address+":2379", "http://"+address+":2380"
	cmd := exec.Command("etcd", append([]string{
		"--name", "m", "--data-dir", dir, "--initial-cluster", "m=" + peer, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--listen-client-urls", client, "--advertise-client-urls", client, "--heartbeat-interval", "100", "--election-timeout", "500", "--logger", "zap",
	}, flags...)...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=arm64")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(filepath.Join(ts.MkAbs("."), "etcd-"+address+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer log.Close()
	member, err := startCommand(cmd, log)
	ts.Check(err)
	running[address] = member
	ts.Defer(func() {
		if running[address] == member {
			_ = member.stop()
		}
	})
	if scheme == "http" {
		ts.Check(waitUntil(30*time.Second, func() error { return healthy(client + "/health") }))
	}
}

// healthy asks an etcd whether it has a leader.
func healthy(url string) error {
	client := http.Client{Timeout: time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}
