package blobs_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/blobs"
	"github.com/berth-run/berth/internal/registry"
)

// store is a Store of a registry of its own, and that.
func store(t *testing.T) (*blobs.Store, *registry.Registry) {
	t.Helper()
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(func() { server.Close(); _ = r.Close() })
	return &blobs.Store{URL: server.URL, Client: server.Client()}, r
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func has(t *testing.T, s *blobs.Store, digest string) bool {
	t.Helper()
	is, err := s.Has(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func TestAFileIsThereByItsDigestOnceItWasPut(t *testing.T) {
	s, _ := store(t)
	for _, content := range []string{"", "a table\n", strings.Repeat("0123456789abcdef", 1<<16)} {
		digest := digestOf(content)
		if has(t, s, digest) {
			t.Errorf("%s is there before it was put", digest)
		}
		for range 2 { // also what is there already
			got, size, err := s.Put(t.Context(), strings.NewReader(content))
			if err != nil || got != digest || size != int64(len(content)) {
				t.Fatalf("put: %s of %d bytes, %v", got, size, err)
			}
		}
		if !has(t, s, digest) {
			t.Errorf("%s is not there", digest)
		}
		reader, size, err := s.Open(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(reader)
		if err != nil || string(got) != content || size != int64(len(content)) || reader.Close() != nil {
			t.Errorf("read %d of %d bytes, %v", len(got), size, err)
		}
	}
}

func TestAFileThatIsNotThere(t *testing.T) {
	s, _ := store(t)
	if _, _, err := s.Open(t.Context(), digestOf("nothing")); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("%v", err)
	}
}

// What a sweep takes for garbage are blobs that nothing refers to.
func TestAFileIsNoGarbage(t *testing.T) {
	s, r := store(t)
	digest, _, err := s.Put(t.Context(), strings.NewReader("kept"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.GarbageCollect(t.Context(), registry.Collection{MinAge: -1}); err != nil {
		t.Fatal(err)
	}
	reader, _, err := s.Open(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if got, err := io.ReadAll(reader); err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAFileThatNobodyKeepsExpires(t *testing.T) {
	s, r := store(t)
	digest, size, err := s.Put(t.Context(), strings.NewReader("old"))
	if err != nil {
		t.Fatal(err)
	}
	expire := func(before time.Time) int {
		t.Helper()
		n, err := s.Expire(t.Context(), before)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := expire(time.Now().Add(-time.Hour)); n != 0 || !has(t, s, digest) {
		t.Errorf("%d files of this hour expired", n)
	}
	if err := s.Keep(t.Context(), digest, size); err != nil {
		t.Fatal(err)
	}
	if n := expire(time.Now().Add(time.Hour)); n != 1 || has(t, s, digest) {
		t.Errorf("%d files expired", n)
	}
	if _, err := r.GarbageCollect(t.Context(), registry.Collection{MinAge: -1}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Open(t.Context(), digest); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("%v", err)
	}
	if n := expire(time.Now()); n != 0 {
		t.Errorf("%d of none", n)
	}
}

// Why it could not be read is what is told, and not what a registry makes of it.
func TestAFileThatCannotBeReadToItsEndIsNotPut(t *testing.T) {
	s, _ := store(t)
	broken := errors.New("the disk is broken")
	content := io.MultiReader(strings.NewReader("half of it"), iotest.ErrReader(broken))
	if _, _, err := s.Put(t.Context(), content); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if has(t, s, digestOf("half of it")) {
		t.Error("half of it is there")
	}
}

// answering is a registry that gives one answer to all.
func answering(t *testing.T, answer http.HandlerFunc) *blobs.Store {
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return &blobs.Store{URL: server.URL, Client: server.Client()}
}

func TestAFileThatIsNotWhatItsDigestSaysIsNotTaken(t *testing.T) {
	s := answering(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "another") })
	reader, _, err := s.Open(t.Context(), digestOf("this"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := io.ReadAll(reader); berth.CodeOf(err) != berth.CodeUnavailable || !strings.Contains(err.Error(), "something else") {
		t.Errorf("%v", err)
	}
}

// The token is for the registry that it was made for.
func TestAnUploadDoesNotGoElsewhere(t *testing.T) {
	asked := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer elsewhere.Close()
	s := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", elsewhere.URL+"/upload")
		w.WriteHeader(http.StatusAccepted)
	})
	if _, _, err := s.Put(t.Context(), strings.NewReader("x")); err == nil || asked {
		t.Errorf("%v, and it was asked: %v", err, asked)
	}
}

func TestWhatARegistrySaysIsPassedOn(t *testing.T) {
	for status, code := range map[int]berth.ErrorCode{
		http.StatusUnauthorized: berth.CodeUnauthorized, http.StatusForbidden: berth.CodeForbidden, http.StatusInsufficientStorage: berth.CodeExhausted, http.StatusBadGateway: berth.CodeUnavailable,
	} {
		s := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"errors": [{"code": "X", "message": "so it is"}]}`)
		})
		if _, _, err := s.Put(t.Context(), strings.NewReader("x")); berth.CodeOf(err) != code || !strings.Contains(err.Error(), "so it is") {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestOnlyWhatMayPassIsTriedAgain(t *testing.T) {
	tries := 0
	err := blobs.Again(t.Context(), func() error {
		if tries++; tries < 3 {
			return berth.Errorf(berth.CodeUnavailable, "away")
		}
		return nil
	})
	if err != nil || tries != 3 {
		t.Errorf("%d tries, %v", tries, err)
	}
	tries = 0
	err = blobs.Again(t.Context(), func() error { tries++; return berth.Errorf(berth.CodeForbidden, "no") })
	if berth.CodeOf(err) != berth.CodeForbidden || tries != 1 {
		t.Errorf("%d tries, %v", tries, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := blobs.Again(ctx, func() error { return berth.Errorf(berth.CodeUnavailable, "away") }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
