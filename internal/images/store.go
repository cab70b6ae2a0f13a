// Package images keeps packages as OCI images in registries: it pushes, pulls,
// lists and removes them by the registry protocol, so that a registry is all
// the store that packages need. What a package offers travels with its image,
// as an annotation. It builds nothing and runs nothing.
package images

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berth-run/berth"
)

// Annotation holds the JSON of a berth.Package on its image's manifest.
const Annotation = "run.berth.package"

// LocalHost stands for Berth's own registry in references where it has no
// address: images that are loaded instead of pulled are named by it.
const LocalHost = berth.LoadedRegistry

// Store is a registry, or a part of one below a prefix.
type Store struct {
	where    string // HOST[:PORT][/PREFIX]
	insecure bool

	transport http.RoundTripper
	options   []remote.Option // with the transport
}

// Local returns the store that a transport leads to, whatever its host.
func Local(transport http.RoundTripper) *Store {
	return &Store{where: LocalHost, insecure: true, transport: transport, options: []remote.Option{remote.WithTransport(transport), remote.WithAuth(authn.Anonymous), remote.WithJobs(4)}}
}

// Remote returns the store at HOST[:PORT][/PREFIX], with the credentials of
// docker's configuration.
func Remote(where string, transport http.RoundTripper) *Store {
	transport = Verified(transport)
	return &Store{where: strings.TrimSuffix(where, "/"), transport: transport, options: []remote.Option{remote.WithTransport(transport), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithJobs(4)}}
}

// Login returns the user and password that docker's configuration has for a
// registry.
func Login(host string) (user, password string, ok bool) {
	registry, err := name.NewRegistry(host)
	if err != nil {
		return "", "", false
	}
	login, err := authn.DefaultKeychain.Resolve(registry)
	if err != nil || login == authn.Anonymous {
		return "", "", false
	}
	c, err := login.Authorization()
	return c.Username, c.Password, err == nil && c.Password != ""
}

// Where returns HOST[:PORT][/PREFIX].
func (s *Store) Where() string { return s.where }

func (s *Store) nameOptions() []name.Option {
	if s.insecure {
		return []name.Option{name.Insecure}
	}
	return nil
}

func (s *Store) repository(pkg string) (name.Repository, error) {
	r, err := name.NewRepository(s.where+"/"+pkg, s.nameOptions()...)
	if err != nil {
		return r, berth.Errorf(berth.CodeInvalid, "package %q in registry %q: %w", pkg, s.where, err)
	}
	return r, nil
}

func (s *Store) with(ctx context.Context) []remote.Option {
	return append(s.options[:len(s.options):len(s.options)], remote.WithContext(ctx))
}

// Reference is how containers are made from a package: pinned by digest.
func (s *Store) Reference(pkg, digest string) string { return s.where + "/" + pkg + "@" + digest }

// Push stores an image or an index as a version of a package and returns its
// digest. What the registry has already is not sent again, so a push that broke
// off goes on where it was.
func (s *Store) Push(ctx context.Context, image remote.Taggable, pkg, version string, progress chan<- v1.Update) (string, error) {
	repository, err := s.repository(pkg)
	if err != nil {
		return "", err
	}
	options := s.with(ctx)
	if progress != nil {
		options = append(options, remote.WithProgress(progress))
	}
	tag := repository.Tag(version)
	switch image := image.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(tag, image, options...)
	case v1.Image:
		err = remote.Write(tag, image, options...)
	default:
		return "", berth.Errorf(berth.CodeInternal, "a %T is no image", image)
	}
	if err != nil {
		return "", s.explain("push "+pkg+" to", err)
	}
	digest, err := image.(interface{ Digest() (v1.Hash, error) }).Digest()
	return digest.String(), err
}

// descriptor finds a version of a package, by tag or by digest.
func (s *Store) descriptor(ctx context.Context, pkg, reference string) (*remote.Descriptor, error) {
	repository, err := s.repository(pkg)
	if err != nil {
		return nil, err
	}
	var ref name.Reference = repository.Tag(reference)
	if strings.HasPrefix(reference, "sha256:") {
		ref = repository.Digest(reference)
	}
	d, err := remote.Get(ref, s.with(ctx)...)
	if err != nil {
		if notFound(err) {
			return nil, s.missing(ctx, pkg, reference)
		}
		return nil, s.explain("read "+pkg+" from", err)
	}
	return d, nil
}

// missing says what there is instead.
func (s *Store) missing(ctx context.Context, pkg, reference string) error {
	versions, err := s.versions(ctx, pkg)
	if err != nil || len(versions) == 0 {
		return berth.Errorf(berth.CodeNotFound, "there is no package %s in %s: see berth package list", pkg, s.place())
	}
	return berth.Errorf(berth.CodeNotFound, "package %s has no version %s in %s; it has %s", pkg, reference, s.place(), strings.Join(versions, ", "))
}

// place is how a person calls the store.
func (s *Store) place() string {
	if s.where == LocalHost {
		return "Berth's own registry"
	}
	return "registry " + s.where
}

// Inspect returns a package. The reference is a version, a digest, or empty
// for the newest version; one before a release, such as 1.0.0-rc.1, is that only
// where nothing was released. CodeNotFound when there is none; CodeInvalid for an
// image that is no package.
func (s *Store) Inspect(ctx context.Context, pkg, reference string) (berth.Package, error) {
	if reference == "" {
		versions, err := s.versions(ctx, pkg)
		if err != nil {
			return berth.Package{}, err
		}
		if len(versions) == 0 {
			return berth.Package{}, s.missing(ctx, pkg, "")
		}
		reference = newest(versions)
	}
	dates := &dates{next: s.transport}
	dated := *s
	dated.options = append(slices.Clone(s.options), remote.WithTransport(dates))
	d, err := dated.descriptor(ctx, pkg, reference)
	if err != nil {
		return berth.Package{}, err
	}
	p, err := read(d, s.Reference(pkg, d.Digest.String()))
	if at := dates.at(p.Digest); !at.IsZero() {
		p.CreatedAt = at
	}
	return p, err
}

// stamp is the time that package build gives to everything, which says nothing.
var stamp = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// read takes a package from its manifest.
func read(d *remote.Descriptor, called string) (berth.Package, error) {
	var manifest struct {
		Annotations map[string]string `json:"annotations"`
		Layers      []v1.Descriptor   `json:"layers"`
		Manifests   []v1.Descriptor   `json:"manifests"`
	}
	var p berth.Package
	if err := json.Unmarshal(d.Manifest, &manifest); err != nil {
		return p, berth.Errorf(berth.CodeInvalid, "%s: its manifest can't be read: %w", called, err)
	}
	text, ok := manifest.Annotations[Annotation]
	if !ok {
		return p, berth.Errorf(berth.CodeInvalid, "%s is an image but no package of Berth; build it with berth package build", called)
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return p, berth.Errorf(berth.CodeInvalid, "%s: its description can't be read: %w", called, err)
	}
	p.Digest = d.Digest.String()
	if len(manifest.Manifests) > 0 {
		for _, m := range manifest.Manifests {
			p.Size += m.Size
			if m.Platform != nil {
				p.Platforms = append(p.Platforms, m.Platform.OS+"/"+m.Platform.Architecture)
			}
		}
		if index, err := d.ImageIndex(); err == nil {
			p.Size = indexSize(index)
		}
		return p, nil
	}
	for _, layer := range manifest.Layers {
		p.Size += layer.Size
	}
	if image, err := d.Image(); err == nil {
		if config, err := image.ConfigFile(); err == nil {
			p.Platforms = []string{config.OS + "/" + config.Architecture}
			if config.Created.After(stamp) {
				p.CreatedAt = config.Created.UTC()
			}
		}
	}
	return p, nil
}

func indexSize(index v1.ImageIndex) (size int64) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return 0
	}
	for _, m := range manifest.Manifests {
		image, err := index.Image(m.Digest)
		if err != nil {
			continue
		}
		if manifest, err := image.Manifest(); err == nil {
			for _, layer := range manifest.Layers {
				size += layer.Size
			}
		}
	}
	return size
}

// Image returns the image of a package for a platform such as linux/amd64.
func (s *Store) Image(ctx context.Context, pkg, reference, platform string) (v1.Image, error) {
	d, err := s.descriptor(ctx, pkg, reference)
	if err != nil {
		return nil, err
	}
	if !d.MediaType.IsIndex() {
		return d.Image()
	}
	wanted, err := v1.ParsePlatform(platform)
	if err != nil {
		return nil, err
	}
	index, err := d.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, m := range manifest.Manifests {
		if m.Platform != nil && m.Platform.Satisfies(*wanted) {
			return index.Image(m.Digest)
		}
	}
	return nil, berth.Errorf(berth.CodeNotFound, "package %s has no image for %s: build it with --platform %s", pkg, platform, platform)
}

// Has reports whether the store has that very image.
func (s *Store) Has(ctx context.Context, pkg, digest string) (bool, error) {
	repository, err := s.repository(pkg)
	if err != nil {
		return false, err
	}
	if _, err = remote.Head(repository.Digest(digest), s.with(ctx)...); err != nil {
		if notFound(err) {
			return false, nil
		}
		return false, s.explain("look for "+pkg+" in", err)
	}
	return true, nil
}

// Copy brings a package from one store to another.
func Copy(ctx context.Context, from, to *Store, pkg string, p berth.Package, progress chan<- v1.Update) (string, error) {
	d, err := from.descriptor(ctx, pkg, p.Digest)
	if err != nil {
		return "", err
	}
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		if err != nil {
			return "", from.explain("read "+pkg+" from", err)
		}
		return to.Push(ctx, index, pkg, p.Version, progress)
	}
	image, err := d.Image()
	if err != nil {
		return "", from.explain("read "+pkg+" from", err)
	}
	return to.Push(ctx, image, pkg, p.Version, progress)
}

// Remove deletes a version of a package, or all that its digest names. The
// space is freed when the registry sweeps.
func (s *Store) Remove(ctx context.Context, pkg, reference string) error {
	d, err := s.descriptor(ctx, pkg, reference)
	if err != nil {
		return err
	}
	repository, err := s.repository(pkg)
	if err != nil {
		return err
	}
	digests := []string{d.Digest.String()}
	if d.MediaType.IsIndex() {
		if index, err := d.ImageIndex(); err == nil {
			if manifest, err := index.IndexManifest(); err == nil {
				for _, m := range manifest.Manifests {
					digests = append(digests, m.Digest.String())
				}
			}
		}
	}
	for i, digest := range digests {
		if err := remote.Delete(repository.Digest(digest), s.with(ctx)...); err != nil && (i == 0 || !notFound(err)) {
			return s.explain("remove "+pkg+" from", err)
		}
	}
	return nil
}

// Of returns Berth's own registry as a service reaches it: embedded, by the
// host's socket, or over the network.
func Of(service any) (*Store, error) {
	transport, ok := service.(http.RoundTripper)
	if !ok {
		return nil, berth.Errorf(berth.CodeUnsupported, "this service has no registry")
	}
	return Local(transport), nil
}
