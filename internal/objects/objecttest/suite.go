package objecttest

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/internal/objects"
)

// Suite tests what every store promises, on an empty one.
func Suite(t *testing.T, s objects.Store) {
	ctx := t.Context()
	put := func(key, content string) {
		t.Helper()
		if err := s.Put(ctx, key, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(key string, offset, length int64) string {
		t.Helper()
		r, err := s.Range(ctx, key, offset, length)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	keys := func(prefix string, folders bool) []string {
		t.Helper()
		var found []string
		for o, err := range s.List(ctx, prefix, folders) {
			if err != nil {
				t.Fatal(err)
			}
			if o.Folder != strings.HasSuffix(o.Key, "/") {
				t.Errorf("%+v", o)
			}
			found = append(found, o.Key)
		}
		return found
	}

	t.Run("what isn't there", func(t *testing.T) {
		if _, _, err := s.Get(ctx, "none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get: %v", err)
		}
		if _, err := s.Range(ctx, "none", 0, 1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("range: %v", err)
		}
		if _, err := s.Stat(ctx, "none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat: %v", err)
		}
		if err := s.Delete(ctx, "none"); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	t.Run("an object is read as it was stored, also in parts", func(t *testing.T) {
		put("a/1", "0123456789")
		data, o, err := s.Get(ctx, "a/1")
		if err != nil || string(data) != "0123456789" || o.Size != 10 || time.Since(o.Modified).Abs() > time.Minute {
			t.Errorf("%q %+v %v", data, o, err)
		}
		for _, c := range []struct {
			offset, length int64
			want           string
		}{{0, 3, "012"}, {4, 2, "45"}, {7, -1, "789"}, {8, 100, "89"}, {5, 0, ""}} {
			if got := read("a/1", c.offset, c.length); got != c.want {
				t.Errorf("from %d, %d bytes: %q", c.offset, c.length, got)
			}
		}
	})
	t.Run("a later one takes its place", func(t *testing.T) {
		put("a/1", "new")
		if got := read("a/1", 0, -1); got != "new" {
			t.Error(got)
		}
		put("empty", "")
		if o, err := s.Stat(ctx, "empty"); err != nil || o.Size != 0 {
			t.Error(o, err)
		}
	})
	t.Run("one that is large", func(t *testing.T) {
		large := strings.Repeat("0123456789abcdef", 12<<16) // in several parts
		put("large", large)
		if got := read("large", 0, -1); got != large {
			t.Errorf("%d bytes", len(got))
		}
		if got := read("large", 11<<20, 16); got != large[11<<20:11<<20+16] {
			t.Error(got)
		}
	})
	t.Run("keys are listed in order, and as folders", func(t *testing.T) {
		put("a/2/x", "")
		put("a/2/y", "")
		put("ab", "")
		if got := keys("a/", false); !slices.Equal(got, []string{"a/1", "a/2/x", "a/2/y"}) {
			t.Error(got)
		}
		if got := keys("a", true); !slices.Equal(got, []string{"a/", "ab"}) && !slices.Equal(got, []string{"ab", "a/"}) {
			t.Error(got)
		}
		if got := keys("none", false); len(got) > 0 {
			t.Error(got)
		}
	})
	t.Run("what is deleted is gone", func(t *testing.T) {
		for _, key := range keys("", false) {
			if err := s.Delete(ctx, key); err != nil {
				t.Fatal(err)
			}
		}
		if got := keys("", false); len(got) > 0 {
			t.Error(got)
		}
	})
	t.Run("part of a store", func(t *testing.T) {
		u := objects.Under(s, "sub/")
		if err := u.Put(ctx, "k", strings.NewReader("v")); err != nil {
			t.Fatal(err)
		}
		if _, o, err := u.Get(ctx, "k"); err != nil || o.Key != "k" {
			t.Error(o, err)
		}
		if got := keys("", false); !slices.Equal(got, []string{"sub/k"}) {
			t.Error(got)
		}
		if err := u.Delete(ctx, "k"); err != nil {
			t.Error(err)
		}
	})
}
