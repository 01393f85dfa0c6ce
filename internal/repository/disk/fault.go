package disk

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// What a device refuses by itself. All of them wrap a sentinel of package
// belfry; the store counts a disk that returns one of them as not answering.
var (
	errHung    = fmt.Errorf("%w: did not end in time; look at the device's path and at the kernel's log", belfry.ErrRestricted)
	errWaiting = fmt.Errorf("%w: a write has not ended yet and may still land; nothing more is written until it has", belfry.ErrRestricted)
	errLost    = fmt.Errorf("%w: too many calls have not ended; repair the device, or replace it", belfry.ErrRestricted)
	errSuspect = fmt.Errorf("%w: a call failed, or a write ended late; reopen the device and claim again", belfry.ErrRestricted)
	errShort   = fmt.Errorf("%w: only a part was transferred; see that the device has its full size", belfry.ErrRestricted)
	errChanged = fmt.Errorf("%w: not the device that was opened; look for the disk by its UUID", belfry.ErrNotFound)
	errInUse   = fmt.Errorf("%w: an agent of this machine works on it; stop the agent first", belfry.ErrExist)
	errClosed  = fmt.Errorf("%w: closed; open it again", belfry.ErrUsage)
)

// remedies are what to do about errors of the kernel. ErrLimit is not among
// them: from a repository it says that a document is too long.
var remedies = []struct {
	errno    error
	sentinel error
	text     string
}{
	{fs.ErrNotExist, belfry.ErrNotFound, "name a device that is there"},
	{unix.ENXIO, belfry.ErrNotFound, "the device has no medium; attach it"},
	{unix.ENODEV, belfry.ErrNotFound, "the device is gone; attach it"},
	{unix.ENOMEDIUM, belfry.ErrNotFound, "the device has no medium; attach it"},
	{unix.ELOOP, belfry.ErrNotFound, "a link was put in its place; name the device"},
	{fs.ErrPermission, belfry.ErrPermission, "run as root, or with the right to write the device"},
	{unix.EROFS, belfry.ErrPermission, "make the device writable"},
	{unix.EBUSY, belfry.ErrExist, "the device is mounted or part of a volume; name another one"},
	{unix.ENOSPC, belfry.ErrRestricted, "make room on the file system"},
	{unix.EDQUOT, belfry.ErrRestricted, "raise the quota"},
}

// remedied wraps the sentinel of an error of the kernel, and says what to do.
func remedied(err error) error {
	if belfry.Code(err) != belfry.Code(nil) {
		return err
	}
	for _, r := range remedies {
		if errors.Is(err, r.errno) {
			return fmt.Errorf("%w: %w; %s", r.sentinel, err, r.text)
		}
	}
	return fmt.Errorf("%w: %w; look at the device and at the kernel's log, or replace the disk", belfry.ErrRestricted, err)
}

// fail is an error of one operation on one device or file.
func fail(op, path string, err error) error {
	return &belfry.Error{Op: "repository.disk." + op, Subject: path, Err: remedied(err)}
}

// taken is for a path where something is already.
func taken(err error) error {
	return fmt.Errorf("%w: %w; name a path where nothing is", belfry.ErrExist, err)
}
