package control

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
)

// statfs tells of the filesystem of a path; tests have their own.
var statfs = unix.Statfs

// networkFilesystems are those, by their magic numbers (statfs(2)), on which
// the lock of a data directory holds on one machine at best, and memory that
// processes share through a file, as SQLite's log needs it, on none.
var networkFilesystems = map[int64]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.AFS_SUPER_MAGIC:  "AFS",
	unix.AFS_FS_MAGIC:     "AFS",
	0x0BD00BD0:            "Lustre",
}

// onThisMachine refuses a data directory, which may have still to be made, on a
// filesystem of the network.
func onThisMachine(dir string) error {
	var of unix.Statfs_t
	for path := dir; ; path = filepath.Dir(path) {
		err := statfs(path, &of)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return nil // who can't be asked is not in the way; what follows says what is wrong
		}
	}
	if name, network := networkFilesystems[of.Type]; network { //nolint:unconvert // it has 32 bits on some machines
		return berth.Errorf(berth.CodeUnsupported, "the data directory %s is on %s: locks and the database's log don't work there between machines; name a directory of this machine's own with --data or BERTH_DATA (logs and packages of a server may be on it: --storage)", dir, name)
	}
	return nil
}
