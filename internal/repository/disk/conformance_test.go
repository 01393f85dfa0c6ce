package disk

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

func TestConformanceOfAFile(t *testing.T) {
	t.Parallel()
	repositorytest.Run(t, func(t *testing.T) func(int) repository.Backend {
		path := newFile(t, small())
		return func(host int) repository.Backend {
			cfg := hostConfig(path, host, 2)
			cfg.Repository.Slots = func([]byte) int { return 2 }
			return newHost(t, cfg)
		}
	})
}

func TestConformanceOfAFileWithoutDirectIO(t *testing.T) {
	t.Parallel()
	repositorytest.Run(t, func(t *testing.T) func(int) repository.Backend {
		path := newFile(t, small())
		return func(host int) repository.Backend {
			h, err := openHost(hostConfig(path, host, 2), openBuffered)
			if err != nil {
				t.Fatal(err)
			}
			if !h.devices[0].Buffered() {
				t.Error("the device does not say that it is buffered")
			}
			return h
		}
	})
}

func TestConformanceOfABlockDevice(t *testing.T) {
	t.Parallel()
	repositorytest.Run(t, func(t *testing.T) func(int) repository.Backend {
		l := newLoop(t, small().Size())
		format(t, l.path, small())
		return func(host int) repository.Backend { return newHost(t, hostConfig(l.path, host, 2)) }
	})
}

// openBuffered is a file system that refuses direct I/O.
func openBuffered(path string, o Options) (file, error) {
	return openWith(path, o, func(path string, flags int) (int, error) {
		if flags&unix.O_DIRECT != 0 {
			return -1, unix.EINVAL
		}
		return open(path, flags)
	})
}
