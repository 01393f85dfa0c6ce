package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/etcd"
)

// etcdAt is how this machine reaches a place in etcd: with the credentials of its
// settings, and by their endpoints, if they name any.
func etcdAt(own config.Etcd, place repository.Etcd) (etcd.Config, error) {
	cfg := etcd.Config{Endpoints: place.Endpoints, Prefix: place.Prefix, Username: own.User}
	if len(own.Endpoints) > 0 {
		cfg.Endpoints = own.Endpoints
	}
	if own.PasswordFile != "" {
		text, err := os.ReadFile(own.PasswordFile)
		if err != nil {
			return cfg, fmt.Errorf("repository.etcd.password_file: %w", err)
		}
		cfg.Password, _, _ = strings.Cut(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	far := func(endpoint string) bool { return !etcd.Local(endpoint) }
	if own.CA == "" && own.Cert == "" && !slices.ContainsFunc(cfg.Endpoints, far) {
		return cfg, nil
	}
	var err error
	cfg.TLS, err = etcd.Files{CA: own.CA, Cert: own.Cert, Key: own.Key}.TLS()
	return cfg, err
}

// etcdConfig is for the repository of this node, in one of its epochs.
func (s *storage) etcdConfig(place repository.Etcd, epoch uint64) (etcd.Config, error) {
	cfg, err := etcdAt(s.agent.opts.Config.Repository.Etcd, place)
	held := s.held()
	cfg.Cluster, cfg.UUID, cfg.Epoch, cfg.Repository = held.Document.Cluster.UUID, held.Repository, epoch, s.config()
	return cfg, err
}

// openEtcd does not wait for etcd to answer, unless it has to log in there.
func (s *storage) openEtcd(place repository.Etcd, epoch uint64) error {
	cfg, err := s.etcdConfig(place, epoch)
	if err != nil {
		return err
	}
	b, err := etcd.Open(cfg)
	if err != nil {
		return err
	}
	s.use(b, epoch)
	s.agent.log.Info("repository in etcd", "repository", cfg.UUID, "endpoints", cfg.Endpoints, "prefix", cfg.Prefix, "epoch", epoch)
	return nil
}

// use makes a backend that of the jobs to come.
func (s *storage) use(b repository.Backend, epoch uint64) {
	ctx, cancel := context.WithCancel(s.agent.ended)
	var followers sync.WaitGroup
	followers.Go(func() { s.listen(ctx, b.Hints()) })
	if e, ok := b.(*etcd.Backend); ok {
		followers.Go(func() { s.watchEtcd(ctx, e) })
	}
	s.backend, s.epoch, s.slot = b, epoch, slotIn(&s.held().Document, s.agent.id.node.ID)
	s.unuse = func() error {
		cancel()
		followers.Wait()
		return b.Close()
	}
}

// close gives the backend back, if there is one.
func (s *storage) close() error {
	if s.backend == nil {
		return nil
	}
	err := s.unuse()
	s.backend = nil
	return err
}

// listen has the storage read as soon as a backend says that there is something
// new. A hint that is lost is found by the poll.
func (s *storage) listen(ctx context.Context, hints <-chan repository.Version) {
	for {
		select {
		case v := <-hints:
			if v.Generation == 0 || !v.Same(s.held().Version) {
				s.tell(repository.Hint{})
			}
		case <-ctx.Done():
			return
		}
	}
}

const (
	// etcdAskedEvery is how often etcd is asked what should be told of it.
	etcdAskedEvery = 10 * time.Minute
	// etcdAskedSoon is when one is asked again that did not answer.
	etcdAskedSoon = 30 * time.Second
)

// watchEtcd keeps what an operator should know of etcd though everything works.
func (s *storage) watchEtcd(ctx context.Context, b *etcd.Backend) {
	told := map[string]bool{} // endpoint and text
	for {
		warnings, next := b.Warnings(), etcdAskedEvery
		s.warnings.Store(&warnings)
		for _, w := range warnings {
			if w.Kind == etcd.WarnMember {
				next = etcdAskedSoon
				continue
			}
			if key := w.Subject + " " + w.Text; !told[key] {
				told[key] = true
				s.agent.log.Warn("etcd", "endpoint", w.Subject, "warning", w.Text)
				s.tellVersion(w)
			}
		}
		select {
		case <-time.After(next):
		case <-ctx.Done():
			s.warnings.Store(nil)
			return
		}
	}
}

// tellVersion posts repository.version.
func (s *storage) tellVersion(w etcd.Warning) {
	if w.Kind != etcd.WarnVersion {
		return
	}
	id := s.held().Repository.String()
	s.agent.notices.Tell(node.RepositoryVersion, id, time.Now(), belfry.EdgeNone, &belfryv1.RepositoryVersion{
		Node: s.agent.id.node.Name, Repository: id, Endpoint: w.Subject, Reason: w.Text,
	})
}

// etcdWarnings are for listings.
func (s *storage) etcdWarnings() (texts []string) {
	warnings := s.warnings.Load()
	if warnings == nil {
		return nil
	}
	for _, w := range *warnings {
		text := w.Text
		if w.Subject != "" && !strings.Contains(text, w.Subject) {
			text = w.Subject + ": " + text
		}
		texts = append(texts, text)
	}
	return texts
}

// planEtcd looks whether etcd answers, and takes this user, before anything is
// written.
func planEtcd(url string, p Place, force bool) (storagePlan, error) {
	refuse := func(err error) (storagePlan, error) {
		return storagePlan{}, &belfry.Error{Op: "init", Subject: url, Err: err}
	}
	endpoints, prefix, err := etcd.ParseURL(url)
	if err != nil {
		return storagePlan{}, err
	}
	if force {
		return refuse(fmt.Errorf("%w: with etcd there is nothing to destroy; leave --force out", belfry.ErrUsage))
	}
	place := repository.Etcd{Endpoints: endpoints, Prefix: prefix}
	cfg, err := etcdAt(p.Etcd, place)
	if err != nil {
		return refuse(err)
	}
	cfg.Cluster, cfg.UUID = belfry.ClusterID(newUUID()), newUUID() // nobody has them
	b, err := etcd.Open(cfg)
	if err != nil {
		return refuse(err)
	}
	_, err = b.Poll()
	if errors.Is(err, belfry.ErrNotFound) {
		err = nil
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return storagePlan{}, err
	}
	return storagePlan{path: url, kind: repository.KindEtcd, etcd: &cfg, place: place}, nil
}

// createAttempts is how often a first generation is written whose outcome is not known.
const createAttempts = 3

// putIntoEtcd writes the first generation.
func (plan storagePlan) putIntoEtcd(table *Table, id repository.UUID, founder repository.Founder, document []byte, op repository.OpID) (v repository.Version, err error) {
	cfg := *plan.etcd
	cfg.Cluster, cfg.UUID = table.Cluster, id
	public := table.Nodes[0].Key.ed25519()
	cfg.Repository = repository.Config{
		Node: founder.Node, Boot: founder.Boot, Sign: founder.Sign, Holds: repository.HoldsOp,
		Admit: func(signer belfry.NodeID, _ []byte) (repository.Verify, error) {
			if signer != founder.Node {
				return nil, belfry.ErrNotMember
			}
			return repository.VerifyKey(public), nil
		},
	}
	for range createAttempts {
		if v, err = etcd.Create(cfg, document, op); !errors.Is(err, belfry.ErrUnknown) {
			return v, err
		}
	}
	return v, err
}
