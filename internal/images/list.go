package images

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berth-run/berth"
)

// versions are the versions of a package, oldest first. A package that isn't
// there has none.
func (s *Store) versions(ctx context.Context, pkg string) ([]string, error) {
	repository, err := s.repository(pkg)
	if err != nil {
		return nil, err
	}
	tags, err := remote.List(repository, s.with(ctx)...)
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, s.explain("list the versions of "+pkg+" in", err)
	}
	slices.SortFunc(tags, CompareVersions)
	return tags, nil
}

// newest is the newest of versions that are in order.
func newest(versions []string) string {
	for _, version := range slices.Backward(versions) {
		if numbers, pre := parts(version); len(numbers) > 0 && pre == "" {
			return version
		}
	}
	return versions[len(versions)-1]
}

// List returns all versions of all packages in which every word of a text
// occurs, by name and version. Images that are no packages are left out.
func (s *Store) List(ctx context.Context, text string) ([]berth.Package, error) {
	host, prefix, _ := strings.Cut(s.where, "/")
	registry, err := name.NewRegistry(host, s.nameOptions()...)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "registry %q: %w", s.where, err)
	}
	repositories, err := remote.Catalog(ctx, registry, s.options...)
	if notFound(err) {
		return nil, berth.Errorf(berth.CodeUnsupported, "%s doesn't list what it has; packages in it are reached by name", s.place())
	}
	if err != nil {
		return nil, s.explain("list the packages of", err)
	}
	packages := []berth.Package{}
	for _, repository := range repositories {
		pkg, ours := repository, true
		if prefix != "" {
			pkg, ours = strings.CutPrefix(repository, prefix+"/")
		}
		if !ours || pkg == berth.FilesRepository {
			continue
		}
		versions, err := s.versions(ctx, pkg)
		if err != nil {
			return nil, err
		}
		for _, version := range versions {
			p, err := s.Inspect(ctx, pkg, version)
			switch {
			case berth.CodeOf(err) == berth.CodeInvalid || berth.CodeOf(err) == berth.CodeNotFound:
				continue // no package; or removed meanwhile
			case err != nil:
				return nil, err
			case matches(p, text):
				packages = append(packages, p)
			}
		}
	}
	slices.SortFunc(packages, func(a, b berth.Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), CompareVersions(a.Version, b.Version))
	})
	return packages, nil
}

// matches reports whether every word of a text occurs in what a package says
// of itself.
func matches(p berth.Package, text string) bool {
	said := []string{p.Name, p.Description}
	for _, f := range p.Functions {
		said = append(said, f.Name, f.Description)
	}
	all := strings.ToLower(strings.Join(said, "\n"))
	for word := range strings.FieldsSeq(strings.ToLower(text)) {
		if !strings.Contains(all, word) {
			return false
		}
	}
	return true
}

// CompareVersions orders semantic versions; what is none comes first.
func CompareVersions(a, b string) int {
	na, pa := parts(a)
	nb, pb := parts(b)
	if c := slices.Compare(na, nb); c != 0 {
		return c
	}
	switch {
	case pa == pb:
		return strings.Compare(a, b)
	case pa == "":
		return 1
	case pb == "":
		return -1
	}
	return comparePre(strings.Split(pa, "."), strings.Split(pb, "."))
}

func parts(version string) (numbers []int, pre string) {
	version, _, _ = strings.Cut(version, "+")
	core, pre, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	for part := range strings.SplitSeq(core, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, version
		}
		numbers = append(numbers, n)
	}
	return numbers, pre
}

// comparePre orders pre-releases as semantic versioning says: numbers by value
// and before words, fewer parts before more.
func comparePre(a, b []string) int {
	for i := range min(len(a), len(b)) {
		na, errA := strconv.Atoi(a[i])
		nb, errB := strconv.Atoi(b[i])
		c := strings.Compare(a[i], b[i])
		switch {
		case errA == nil && errB == nil:
			c = cmp.Compare(na, nb)
		case errA == nil:
			c = -1
		case errB == nil:
			c = 1
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}
