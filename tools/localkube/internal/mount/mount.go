// Package mount lists and removes this machine's mounts. It knows nothing of clusters.
package mount

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Point is a mounted file system.
type Point struct {
	Path    string
	Type    string
	Options string // the file system's own, such as a cgroup's controllers
}

// Points returns this process's mounts, oldest first.
func Points() ([]Point, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	defer file.Close()
	return parse(file)
}

// parse reads lines "id parent device root PATH options ... - TYPE source OPTIONS".
func parse(table io.Reader) ([]Point, error) {
	var points []Point
	lines := bufio.NewScanner(table)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, found := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 5 || len(right) < 3 {
			continue
		}
		points = append(points, Point{Path: unescape(left[4]), Type: right[0], Options: right[2]})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	return points, nil
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(path string) string {
	var plain strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if code, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				plain.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		plain.WriteByte(path[i])
	}
	return plain.String()
}

// Below returns the paths of mounts at or below a folder.
func Below(points []Point, folder string) []string {
	var paths []string
	for _, point := range points {
		if point.Path == folder || strings.HasPrefix(point.Path, folder+"/") {
			paths = append(paths, point.Path)
		}
	}
	return paths
}

// Unmount removes every mount at or below the folder, newest first. What is still in use goes away
// with its last user.
func Unmount(folder string) error {
	points, err := Points()
	if err != nil {
		return err
	}
	paths := Below(points, folder)
	for i := len(paths) - 1; i >= 0; i-- {
		err := unix.Unmount(paths[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		// A mount may vanish with its parent, or with a shared peer.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", paths[i], err)
		}
	}
	return nil
}

// BindShared makes a folder appear at a second place. Mounts that appear below the new place are seen
// by every mount namespace made from it, which pods with mount propagation need, but not at the old one:
// each would have to be removed twice.
func BindShared(folder, place string) error {
	if err := os.MkdirAll(place, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", place, err)
	}
	if err := unix.Mount(folder, place, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", folder, place, err)
	}
	for _, propagation := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", place, "", propagation, ""); err != nil {
			return fmt.Errorf("share the mounts below %s: %w", place, err)
		}
	}
	return nil
}
