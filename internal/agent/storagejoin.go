package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
	"github.com/belfry-ha/belfry/internal/repository/etcd"
	"github.com/belfry-ha/belfry/internal/security"
)

const (
	// joinReads is how often the generation that admits a node is looked for: it is
	// committed before the answer comes.
	joinReads     = 20
	joinReadEvery = 100 * time.Millisecond
)

// readGeneration reads what lists a node that has just been admitted from the
// storage, where it has to be found on this machine: the answer of the member
// that let it in says only which generation of which repository (US8788465
// claims 1 to 6). A later one counts as well.
func readGeneration(p Place, keys *security.Keys, resp *belfryv1.JoinResponse) (*Table, repository.Snapshot, error) {
	var id repository.UUID
	var digest repository.Digest
	if len(resp.GetRepository()) != len(id) || len(resp.GetDigest()) != len(digest) {
		return nil, repository.Snapshot{}, fmt.Errorf("%w: the answer names no repository", belfry.ErrUsage)
	}
	copy(id[:], resp.GetRepository())
	copy(digest[:], resp.GetDigest())
	refuse := func(err error) (*Table, repository.Snapshot, error) {
		return nil, repository.Snapshot{}, &belfry.Error{Op: "repository.read", Subject: id.String(), Err: err}
	}
	reader := repository.Config{
		Node: keys.Node, Host: -1,
		Admit: func(signer belfry.NodeID, candidate []byte) (repository.Verify, error) {
			return admitNamed(keys, digest, signer, candidate)
		},
		Holds: repository.HoldsOp, Local: true, // it only reads
	}
	open := openToRead
	if resp.GetPlace() != "" {
		open = func(p Place, id repository.UUID, reader repository.Config) (repository.Backend, error) {
			return openEtcdToRead(p, resp, etcd.Config{Cluster: keys.Cluster, UUID: id, Repository: reader})
		}
	}
	backend, err := open(p, id, reader)
	if err != nil {
		return refuse(err)
	}
	snapshot, err := awaitGeneration(backend, digest, resp.GetGeneration())
	if err = errors.Join(err, backend.Close()); err != nil {
		return refuse(err)
	}
	d, err := repository.Decode(snapshot.Document)
	if err == nil {
		err = d.Validate(judgeTunables)
	}
	if err != nil {
		return refuse(err)
	}
	return tableOf(&d), snapshot, nil
}

// openToRead opens the repository on the disks of this machine.
func openToRead(p Place, id repository.UUID, reader repository.Config) (repository.Backend, error) {
	found := disk.NewFinder(disk.FinderConfig{Folders: p.Search}).Find(id)
	disks := found.Repository(id)
	if len(disks) == 0 {
		if len(found.Clones) > 0 {
			return nil, errClonedDisk(found.Clones[0])
		}
		return nil, fmt.Errorf("%w: this node is a member now, and the repository is not on this machine: attach its disks, or name the folder of its file in the setting repository.search, and run the same command again", belfry.ErrRestricted)
	}
	var paths []string
	for _, d := range disks {
		paths = append(paths, d.Path)
	}
	return disk.OpenHost(disk.HostConfig{Paths: paths, Repository: reader})
}

// openEtcdToRead opens it where the member has said, with the credentials of this
// machine.
func openEtcdToRead(p Place, resp *belfryv1.JoinResponse, cfg etcd.Config) (repository.Backend, error) {
	endpoints, prefix, err := etcd.ParseURL(resp.GetPlace())
	if err != nil {
		return nil, err
	}
	at, err := etcdAt(p.Etcd, repository.Etcd{Endpoints: endpoints, Prefix: prefix})
	if err != nil {
		return nil, err
	}
	at.Cluster, at.UUID, at.Epoch, at.Repository = cfg.Cluster, cfg.UUID, resp.GetRepositoryEpoch(), cfg.Repository
	b, err := etcd.Open(at)
	if err == nil {
		if _, err = b.Poll(); err != nil {
			err = errors.Join(err, b.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("this node is a member now, and does not read the repository in etcd: see to repository.etcd in its settings, and run the same command again: %w", err)
	}
	return b, nil
}

// admitNamed believes who is listed in the very document that a member has
// named by its digest, over a connection that has proved itself; else as
// admitListed.
func admitNamed(keys *security.Keys, digest repository.Digest, signer belfry.NodeID, candidate []byte) (repository.Verify, error) {
	if candidate != nil && digestOf(candidate) == digest {
		d, err := repository.Decode(candidate)
		if err != nil {
			return nil, err
		}
		if key := d.Key(signer); key != nil {
			return repository.VerifyKey(key), nil
		}
	}
	return admitListed(keys, signer, candidate)
}

func awaitGeneration(backend repository.Backend, digest repository.Digest, generation uint64) (repository.Snapshot, error) {
	for try := 1; ; try++ {
		found, err := pollNamed(backend, digest)
		switch {
		case err == nil && found.Generation >= generation:
			return found, nil
		case err == nil:
			err = fmt.Errorf("%w: generation %d is there, and not %d that lists this node", belfry.ErrStale, found.Generation, generation)
		}
		if try == joinReads {
			return repository.Snapshot{}, err
		}
		<-time.After(joinReadEvery)
	}
}
