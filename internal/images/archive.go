package images

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berth-run/berth"
)

// Archive writes a package as a tar with an OCI layout, as containerd imports
// it under the given names (reference with digest, or tag).
func (s *Store) Archive(ctx context.Context, w io.Writer, pkg, reference string, names ...string) error {
	d, err := s.descriptor(ctx, pkg, reference)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "berth-archive-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	var add mutate.Appendable
	if d.MediaType.IsIndex() {
		add, err = d.ImageIndex()
	} else {
		add, err = d.Image()
	}
	if err != nil {
		return s.explain("read "+pkg+" from", err)
	}
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	for _, called := range names {
		options := []layout.Option{layout.WithAnnotations(map[string]string{"io.containerd.image.name": called, "org.opencontainers.image.ref.name": called})}
		if d.Platform != nil {
			options = append(options, layout.WithPlatform(*d.Platform))
		}
		switch add := add.(type) {
		case v1.ImageIndex:
			err = path.ReplaceIndex(add, match.Name(called), options...)
		case v1.Image:
			err = path.ReplaceImage(add, match.Name(called), options...)
		}
		if err != nil {
			return s.explain("read "+pkg+" from", err)
		}
	}
	return tarFolder(folder, w)
}

// LoadTag is the tag under which a Docker Engine that pulls from nowhere has a
// package: as good as its digest, which an Engine knows of pulled images alone.
func LoadTag(pkg, digest string) string {
	return LocalHost + "/" + pkg + ":" + strings.TrimPrefix(digest, "sha256:")
}

// DockerArchive writes a package for a platform as docker load takes it, under
// its LoadTag.
func (s *Store) DockerArchive(ctx context.Context, w io.Writer, pkg, digest, platform string) error {
	image, err := s.Image(ctx, pkg, digest, platform)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(LoadTag(pkg, digest))
	if err != nil {
		return err
	}
	return tarball.Write(tag, image, w)
}

func tarFolder(folder string, w io.Writer) error {
	t := tar.NewWriter(w)
	if err := t.AddFS(os.DirFS(folder)); err != nil {
		return err
	}
	return t.Close()
}

// Pull writes a package into a file as Archive does, whole or not at all.
func (s *Store) Pull(ctx context.Context, pkg, reference, to string) (berth.Package, error) {
	p, err := s.Inspect(ctx, pkg, reference)
	if err != nil {
		return p, err
	}
	file, err := os.CreateTemp(filepath.Dir(to), ".berth-pull-*")
	if err != nil {
		return p, berth.Errorf(berth.CodeInvalid, "cannot write %s: %w", to, err)
	}
	defer os.Remove(file.Name())
	err = s.Archive(ctx, file, pkg, p.Digest, LocalHost+"/"+pkg+":"+p.Version)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), to)
	}
	return p, err
}
