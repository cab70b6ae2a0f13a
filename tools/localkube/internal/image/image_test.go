package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestTheSameProgramGivesTheSameImage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(program, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	first, err := BusyboxLayer(program, []string{"sh", "ls", "busybox", "sh"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := BusyboxLayer(program, []string{"ls", "sh", "busybox"})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the order of applets changes the image")
	}
	links := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(first)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeSymlink {
			links[header.Name] = header.Linkname
		}
	}
	if len(links) != 3 || links["bin/sh"] != "busybox" || links["bin/ls"] != "busybox" {
		t.Errorf("links %v", links)
	}
}
