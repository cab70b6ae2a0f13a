package config

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type change struct {
	file *File
	err  error
}

// watching starts Watch and returns what it reports.
func watching(t *testing.T, path string) <-chan change {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan change, 16), make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, path, func(file *File, err error) { changes <- change{file, err} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return changes
}

// until repeats a write until Watch reports: it may not have begun to watch.
func until(t *testing.T, changes <-chan change, write func()) change {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		write()
		select {
		case c := <-changes:
			return c
		case <-time.After(300 * time.Millisecond):
		case <-deadline:
			t.Fatal("the change was not reported")
		}
	}
}

func TestWatch(t *testing.T) {
	path, kubeconfig := folder(t, "infrastructures:\n  a: {kind: kube, namespace: first, credentials: {mechanism: config, path: ./kubeconfig}}\n")
	changes := watching(t, path)
	inPlace := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	c := until(t, changes, func() { // until it surely watches
		n++
		inPlace(kubeconfig, strings.Repeat("#\n", n))
	})
	if c.err != nil || c.file.Infrastructures[0].Namespace != "first" {
		t.Fatalf("a changed kubeconfig: %+v", c)
	}

	renamed := func(path, text string) { // as editors do it
		inPlace(path+".swp", text)
		if err := os.Rename(path+".swp", path); err != nil {
			t.Fatal(err)
		}
	}
	renamed(path, "infrastructures:\n  a: {kind: kube, namespace: second, credentials: {mechanism: config, path: sub/kubeconfig}}\n")
	if c := <-changes; c.err != nil || c.file.Infrastructures[0].Namespace != "second" {
		t.Errorf("renamed onto: %+v", c)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(path), "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	until(t, changes, func() {
		n++
		inPlace(filepath.Join(filepath.Dir(path), "sub", "kubeconfig"), strings.Repeat("#\n", n))
	}) // in a folder that wasn't there

	inPlace(path, "infrastructures:\n  a: {knd: kube}\n")
	if c := <-changes; c.err == nil || c.file != nil || !strings.Contains(c.err.Error(), "did you mean kind?") {
		t.Errorf("a bad edit: %+v", c)
	}
	renamed(path, "infrastructures:\n  a: {kind: kube, namespace: s$ns, credentials: {mechanism: in-cluster}}\n")
	if c := <-changes; c.err == nil || !strings.Contains(c.err.Error(), "secrets.yml") {
		t.Errorf("without secrets.yml: %+v", c)
	}
	inPlace(filepath.Join(filepath.Dir(path), "secrets.yml"), "ns: third\n")
	if c := <-changes; c.err != nil || c.file.Infrastructures[0].Namespace != "third" {
		t.Errorf("with secrets.yml: %+v", c)
	}
}

func TestWatchKeepsQuietAboutOtherFiles(t *testing.T) {
	path, _ := folder(t, "infrastructures:\n  a: {kind: kube, namespace: first, credentials: {mechanism: in-cluster}}\n")
	changes := watching(t, path)
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "other"), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := until(t, changes, func() {
		text := strings.Replace(content(t, path), "first", "firstx", 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if c.err != nil || !strings.HasPrefix(c.file.Infrastructures[0].Namespace, "firstx") {
		t.Errorf("got %+v", c)
	}
}
