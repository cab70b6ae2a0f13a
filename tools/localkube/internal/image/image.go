// Package image makes the images that clusters start with, from programs on this machine; nothing is
// pulled. The same programs give the same image.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The names of the images.
const (
	Busybox = "docker.io/library/busybox:1.35"
	Pause   = "localkube.local/pause:1"
)

// WriteBusybox writes an archive of the busybox image, made of a static busybox.
func WriteBusybox(archive, busybox string) error {
	output, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its applets: %w", busybox, err)
	}
	layer, err := BusyboxLayer(busybox, strings.Fields(string(output)))
	if err != nil {
		return err
	}
	return write(archive, Busybox, layer, v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}})
}

// WritePause writes an archive of the image that holds a pod's namespaces.
func WritePause(archive, pause string) error {
	program, err := os.ReadFile(pause)
	if err != nil {
		return fmt.Errorf("make the pause image: %w", err)
	}
	layer, err := files([]file{{name: "pause", mode: 0o755, content: program}})
	if err != nil {
		return err
	}
	return write(archive, Pause, layer, v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"})
}

// BusyboxLayer is the root file system: the program, a link for each applet, and what programs expect.
func BusyboxLayer(busybox string, applets []string) ([]byte, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("make the busybox image: %w", err)
	}
	tree := []file{
		{name: "bin/", mode: 0o755}, {name: "bin/busybox", mode: 0o755, content: program},
		{name: "dev/", mode: 0o755}, {name: "etc/", mode: 0o755}, {name: "home/", mode: 0o755}, {name: "root/", mode: 0o700},
		{name: "tmp/", mode: 0o1777}, {name: "usr/", mode: 0o755}, {name: "usr/bin/", mode: 0o755}, {name: "usr/sbin/", mode: 0o755}, {name: "var/", mode: 0o755}, {name: "var/tmp/", mode: 0o1777},
		{name: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\nuser:x:1000:\nnobody:x:65534:\n")},
	}
	slices.Sort(applets)
	for _, applet := range slices.Compact(applets) {
		if applet != "busybox" {
			tree = append(tree, file{name: "bin/" + applet, mode: 0o777, link: "busybox"})
		}
	}
	tree = append(tree, file{name: "usr/bin/env", mode: 0o777, link: "../../bin/busybox"})
	return files(tree)
}

type file struct {
	name    string // a folder ends in a slash
	mode    int64
	content []byte
	link    string
}

// files writes a tar without times or owners, so that it is the same each time.
func files(tree []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range tree {
		header := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		switch {
		case strings.HasSuffix(f.name, "/"):
			header.Typeflag = tar.TypeDir
		case f.link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, f.link
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("make an image: %w", err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("make an image: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("make an image: %w", err)
	}
	return out.Bytes(), nil
}

func write(archive, image string, content []byte, config v1.Config) error {
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		return fmt.Errorf("make the image %s: %w", image, err)
	}
	made, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("make the image %s: %w", image, err)
	}
	whole, err := made.ConfigFile()
	if err != nil {
		return fmt.Errorf("make the image %s: %w", image, err)
	}
	whole = whole.DeepCopy()
	whole.Config, whole.OS, whole.Architecture = config, "linux", architecture
	if made, err = mutate.ConfigFile(made, whole); err != nil {
		return fmt.Errorf("make the image %s: %w", image, err)
	}
	tag, err := name.NewTag(image)
	if err != nil {
		return fmt.Errorf("make the image %s: %w", image, err)
	}
	if err := tarball.WriteToFile(archive, tag, made); err != nil {
		return fmt.Errorf("write the image %s: %w", image, err)
	}
	return nil
}
