package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/belfry-ha/belfry/bench/side"
)

// roleEtcd is one member of an etcd cluster as it comes; its arguments are its
// name, the address of its clients, and all members as NAME=URL,….
const roleEtcd = "etcd"

func playEtcd(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("arguments %q; name, clients, members", args)
	}
	dir, err := os.MkdirTemp("", "belfry-bench-etcd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.LogLevel = args[0], filepath.Join(dir, "data"), "fatal"
	cfg.LogOutputs, cfg.InitialCluster = []string{"stderr"}, args[2]
	clients := url.URL{Scheme: "http", Host: args[1]}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	for member := range strings.SplitSeq(args[2], ",") {
		if name, text, _ := strings.Cut(member, "="); name == cfg.Name {
			peers, err := url.Parse(text)
			if err != nil {
				return err
			}
			cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peers}, []url.URL{*peers}
		}
	}
	fmt.Fprintln(out, "starts") // it is ready when the others are there
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	case <-time.After(side.EndTimeout):
		return errors.New("the server is not ready")
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

const (
	etcdMembers = 3
	etcdName    = "etcd, 3 members"
	etcdKey     = "bench/config"
)

// etcd is a cluster, each member a process, with a client of the first member
// that writes and others that watch, one member after the other.
type etcd struct {
	members []*side.Child
	clients []*clientv3.Client
	puts    int
}

// startEtcd also starts so many watchers; told gets when each was told of a put.
func startEtcd(ctx context.Context, watchers int, told chan<- time.Time) (_ *etcd, err error) {
	e := &etcd{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.stop())
		}
	}()
	addresses, err := freeAddresses(2 * etcdMembers)
	if err != nil {
		return nil, err
	}
	var cluster []string
	for i := range etcdMembers {
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, addresses[etcdMembers+i]))
	}
	for i := range etcdMembers {
		c, _, err := side.StartRole(roleEtcd, fmt.Sprintf("m%d", i), addresses[i], strings.Join(cluster, ","))
		if err != nil {
			return nil, err
		}
		e.members = append(e.members, c)
	}
	for i := range 1 + watchers {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + addresses[i%etcdMembers]}, DialTimeout: side.EndTimeout})
		if err != nil {
			return nil, err
		}
		e.clients = append(e.clients, c)
	}
	ready, cancel := context.WithTimeout(ctx, side.EndTimeout)
	defer cancel()
	put, err := e.clients[0].Put(ready, etcdKey, "first")
	if err != nil {
		return nil, err
	}
	for _, c := range e.clients[1:] {
		watch := c.Watch(clientv3.WithRequireLeader(ctx), etcdKey, clientv3.WithRev(put.Header.Revision+1), clientv3.WithCreatedNotify())
		if w := <-watch; w.Err() != nil || !w.Created {
			return nil, errors.Join(w.Err(), errors.New("the watch was not created"))
		}
		go func() {
			for w := range watch {
				for range w.Events {
					told <- time.Now()
				}
			}
		}()
	}
	return e, nil
}

// put writes as much as a document of the repository has.
func (e *etcd) put(ctx context.Context) error {
	e.puts++
	_, err := e.clients[0].Put(ctx, etcdKey, string(document(e.puts)))
	return err
}

func (e *etcd) stop() (err error) {
	for _, c := range e.clients {
		_ = c.Close()
	}
	for _, m := range e.members {
		_ = m.In.Close() // all of them, for a member alone waits for the others
	}
	for _, m := range e.members {
		err = errors.Join(err, m.End())
	}
	return err
}

// freeAddresses are on loopback; they were free a moment ago.
func freeAddresses(n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // together: else the kernel may give one twice
		all = append(all, l.Addr().String())
	}
	return all, nil
}
