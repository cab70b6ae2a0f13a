package config

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/berth-run/berth"
)

// settle is how long Watch waits after a change for the rest of it: an editor
// writes in several steps.
const settle = 100 * time.Millisecond

// Watch calls onChange each time that infra.yml, or a file that it depends on
// (secrets.yml, files of references, kubeconfigs, tokens), has other contents
// than before, until the context ends. After a bad edit it is called with the
// error, and whoever listens keeps what it had. It polls nothing.
func Watch(ctx context.Context, path string, onChange func(*File, error)) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		onChange(nil, berth.Errorf(berth.CodeInternal, "infra.yml is not watched for changes: %w", err))
		<-ctx.Done()
		return
	}
	defer watcher.Close()
	w := &watch{path: path, watcher: watcher, files: []string{path, filepath.Join(filepath.Dir(path), "secrets.yml")}}
	if file, err := Load(path); err == nil {
		w.files = append(w.files, file.files...)
	}
	w.follow()
	seen := w.digest()

	timer := time.NewTimer(0)
	if !timer.Stop() {
		<-timer.C
	}
	waiting := false
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-watcher.Events:
			if !ok {
				return
			}
			if !waiting { // not reset by further events, or a busy folder would put it off for ever
				waiting = true
				timer.Reset(settle)
			}
		case <-watcher.Errors: //nolint:errcheck // events were lost: look anyway
			if !waiting {
				waiting = true
				timer.Reset(settle)
			}
		case <-timer.C:
			waiting = false
			w.follow()
			now := w.digest()
			if now == seen {
				continue
			}
			file, err := Load(path)
			if err == nil {
				w.files = append(w.files[:2:2], file.files...)
				w.follow()
				now = w.digest()
			}
			seen = now
			onChange(file, err)
		}
	}
}

// watch is what Watch looks at.
type watch struct {
	path    string
	watcher *fsnotify.Watcher
	files   []string // infra.yml, secrets.yml, then what infra.yml names
}

// follow watches the folders of all files, not the files: a rename onto a file,
// as editors and mounted ConfigMaps do it, would end the watch of the file.
func (w *watch) follow() {
	for _, file := range w.files {
		w.folder(filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			w.folder(filepath.Dir(target))
		}
	}
}

// folder watches a folder or, while it doesn't exist, the nearest above it.
func (w *watch) folder(dir string) {
	for {
		if w.watcher.Add(dir) == nil {
			return
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return
		}
		dir = parent
	}
}

// digest tells whether any of the files has changed.
func (w *watch) digest() [sha256.Size]byte {
	sum := sha256.New()
	for _, file := range w.files {
		sum.Write([]byte(file))
		info, err := os.Stat(file)
		if err != nil {
			sum.Write([]byte{0})
			continue
		}
		sum.Write([]byte(info.Mode().String())) // secrets.yml is refused by its mode
		data, err := readSmall(file)
		if err != nil {
			sum.Write([]byte{1})
			continue
		}
		content := sha256.Sum256(data)
		sum.Write(content[:])
	}
	return [sha256.Size]byte(sum.Sum(nil))
}
