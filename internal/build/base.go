package build

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/daemon"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/pack"
)

// baseName is the base image that a build is upon: what was asked for, what the
// package says, or the default. It is one of
//
//	scratch                 nothing at all
//	FILE.tar, tar:FILE      what docker save writes, or an OCI layout in a tar
//	rootfs:FILE             a tar of a root filesystem, as debootstrap's kind make
//	docker:IMAGE            an image of the Docker Engine
//	IMAGE                   an image of a registry; where that doesn't answer, of the Docker Engine
func baseName(d *pack.Definition, o Options) string {
	switch {
	case o.Base != "":
		return o.Base
	case d.Base != "":
		return d.Base
	}
	return pack.DefaultBase
}

func baseImage(ctx context.Context, d *pack.Definition, o Options, p *v1.Platform) (v1.Image, error) {
	base := baseName(d, o)
	image, from, err := findBase(ctx, base, o.Cache, p)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "base image %s can't be had: %w; check the name and the way to it, or take another base with --base: an image, docker:IMAGE, FILE.tar or rootfs:FILE", base, err)
	}
	if config, err := image.ConfigFile(); err == nil && base != "scratch" && config.Architecture != "" && config.Architecture != p.Architecture {
		return nil, berth.Errorf(berth.CodeInvalid, "base image %s is for %s/%s, not for %s/%s: use another with --base", base, config.OS, config.Architecture, p.OS, p.Architecture)
	}
	o.say("base: %s, from %s", base, from)
	return image, nil
}

func findBase(ctx context.Context, base, cacheDir string, p *v1.Platform) (image v1.Image, from string, err error) {
	if base == "scratch" {
		return empty.Image, "nothing", nil
	}
	if path, ok := strings.CutPrefix(base, "rootfs:"); ok {
		image, err = fromRootFS(path, cacheDir, p)
		return image, "a root filesystem", err
	}
	if path, ok := strings.CutPrefix(base, "tar:"); ok || strings.HasSuffix(base, ".tar") {
		if !ok {
			path = base
		}
		image, err = fromTar(path, p)
		return image, "a file", err
	}
	if engineName, ok := strings.CutPrefix(base, "docker:"); ok {
		image, err = fromEngine(ctx, engineName)
		return image, "the Docker Engine", err
	}
	ref, err := name.ParseReference(base)
	if err != nil {
		return nil, "", err
	}
	image, err = remote.Image(ref, remote.WithContext(ctx), remote.WithPlatform(*p), remote.WithTransport(images.Verified(nil)), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err == nil {
		if cacheDir != "" {
			image = cachedImage{image, cacheDir}
		}
		return image, "its registry", nil
	}
	if local, engineErr := fromEngine(ctx, base); engineErr == nil {
		return local, "the Docker Engine, as its registry does not give it", nil
	}
	return nil, "", err
}

func fromEngine(ctx context.Context, image string) (v1.Image, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return nil, err
	}
	client, err := engine(ctx)
	if err != nil {
		return nil, err
	}
	return daemon.Image(ref, daemon.WithContext(ctx), daemon.WithClient(client), daemon.WithFileBufferedOpener())
}

// fromTar reads what docker save writes, or an OCI layout in a tar.
func fromTar(path string, p *v1.Platform) (v1.Image, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	image, err := tarball.ImageFromPath(path, nil)
	if err == nil {
		return image, nil
	}
	folder, ociErr := unpack(path)
	if ociErr != nil {
		return nil, err
	}
	index, ociErr := layout.ImageIndexFromPath(folder)
	if ociErr != nil {
		return nil, err
	}
	return pick(index, p)
}

// pick finds the image of a platform in an index, and in indexes in it.
func pick(index v1.ImageIndex, p *v1.Platform) (v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, m := range manifest.Manifests {
		switch {
		case m.MediaType.IsIndex():
			if inner, err := index.ImageIndex(m.Digest); err == nil {
				if image, err := pick(inner, p); err == nil {
					return image, nil
				}
			}
		case m.MediaType.IsImage() && (m.Platform == nil || m.Platform.Satisfies(*p)):
			return index.Image(m.Digest)
		}
	}
	return nil, errors.New("the file has no image for " + p.String())
}

// unpack puts a tar into a temporary folder, which the operating system clears.
func unpack(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	folder, err := os.MkdirTemp("", "berth-base-*")
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(folder) // nothing is written outside of it
	if err != nil {
		return "", err
	}
	defer root.Close()
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return folder, nil
		}
		if err != nil {
			return "", err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if dir := filepath.Dir(h.Name); dir != "." {
			if err := root.MkdirAll(dir, 0o700); err != nil {
				return "", err
			}
		}
		to, err := root.Create(h.Name)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(to, r)
		if closeErr := to.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return "", err
		}
	}
}
