package control

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
)

func TestADataDirectoryOnTheNetworkIsRefusedByName(t *testing.T) {
	mounted := t.TempDir()
	defer func(before func(string, *unix.Statfs_t) error) { statfs = before }(statfs)
	for name, c := range map[string]struct {
		magic int64
		says  string
	}{
		"NFS":  {unix.NFS_SUPER_MAGIC, "is on NFS"},
		"CIFS": {unix.CIFS_SUPER_MAGIC, "is on CIFS"},
		"ext4": {unix.EXT4_SUPER_MAGIC, ""},
	} {
		statfs = func(path string, of *unix.Statfs_t) error {
			if _, err := os.Stat(path); err != nil {
				return fs.ErrNotExist
			}
			of.Type = c.magic
			return nil
		}
		dir := filepath.Join(mounted, name, "not", "there", "yet")
		err := newDirectory(dir)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if berth.CodeOf(err) != berth.CodeUnsupported || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "--data") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: it was made all the same", name)
		}
	}
}
