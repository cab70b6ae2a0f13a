package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/internal/bucket"
	"github.com/berth-run/berth/internal/objects/objecttest"
	"github.com/berth-run/berth/internal/s3test"
)

// everywhere runs a test on a registry in each place where one can be.
func everywhere(t *testing.T, test func(t *testing.T, r *Registry)) {
	run := func(name string, open func(t *testing.T) (*Registry, error)) {
		t.Run(name, func(t *testing.T) {
			r, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			test(t, r)
		})
	}
	run("directory", func(t *testing.T) (*Registry, error) { return Open(t.TempDir()) })
	run("memory", func(t *testing.T) (*Registry, error) { return OpenShared(t.TempDir(), &objecttest.Memory{}) })
	run("bucket", func(t *testing.T) (*Registry, error) {
		for name, value := range s3test.Environment() {
			t.Setenv(name, value)
		}
		server := s3test.New(t)
		b, err := bucket.Open(t.Context(), server.URL("registry"))
		if err != nil {
			return nil, err
		}
		return OpenShared(t.TempDir(), served{b, server})
	})
}

// served is a bucket whose server the test has.
type served struct {
	*bucket.Bucket
	server *s3test.Server
}

func ask(t *testing.T, h http.Handler, method, path, contentType string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	request.Header.Set("Accept", ociManifest)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request)
	return w
}

func must(t *testing.T, w *httptest.ResponseRecorder, status int) *httptest.ResponseRecorder {
	t.Helper()
	if w.Code != status {
		t.Fatalf("the answer is %d %s", w.Code, w.Body)
	}
	return w
}

func pushBlob(t *testing.T, r *Registry, name string, content []byte) digest.Digest {
	t.Helper()
	d := digest.FromBytes(content)
	location := must(t, ask(t, r, http.MethodPost, "/v2/"+name+"/blobs/uploads/", "", nil), http.StatusAccepted).Header().Get("Location")
	must(t, ask(t, r, http.MethodPut, location+"&digest="+d.String(), "application/octet-stream", content), http.StatusCreated)
	return d
}

const ociManifest = "application/vnd.oci.image.manifest.v1+json"

func pushManifest(t *testing.T, r *Registry, name, tag string, config, layer digest.Digest, size int) digest.Digest {
	t.Helper()
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}],"annotations":{"tag":%q}}`, ociManifest, config, layer, size, tag)
	must(t, ask(t, r, http.MethodPut, "/v2/"+name+"/manifests/"+tag, ociManifest, manifest), http.StatusCreated)
	return digest.FromBytes(manifest)
}

// age makes everything in the registry old.
func age(t *testing.T, r *Registry, by time.Duration) {
	t.Helper()
	if r.shared != nil {
		switch store := r.shared.objects.(type) {
		case *objecttest.Memory:
			for _, key := range store.Keys() {
				store.Age(key, by)
			}
		case served:
			store.server.Age(t, by)
		}
	}
	then := time.Now().Add(-by)
	err := fs.WalkDir(os.DirFS(r.dir), ".", func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(r.dir+"/"+path, then, then))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGarbageIsWhatNoManifestRefersTo(t *testing.T) {
	everywhere(t, testGarbageIsWhatNoManifestRefersTo)
}

func testGarbageIsWhatNoManifestRefersTo(t *testing.T, r *Registry) {
	config := pushBlob(t, r, "a", []byte("{}"))
	layer, orphan := pushBlob(t, r, "a", []byte("layer")), pushBlob(t, r, "a", []byte("orphan"))
	pushManifest(t, r, "a", "1.0.0", config, layer, 5)
	report, err := r.GarbageCollect(t.Context(), Collection{})
	if err != nil || report.Blobs != 0 || report.Spared != 1 {
		t.Fatalf("what is young was collected: %+v, %v", report, err)
	}
	age(t, r, 2*time.Hour)
	report, err = r.GarbageCollect(t.Context(), Collection{})
	if want := (Report{Blobs: 1, Bytes: 6, Kept: 3}); err != nil || report != want {
		t.Fatalf("collected %+v, %v; want %+v", report, err, want)
	}
	must(t, ask(t, r, http.MethodHead, "/v2/a/blobs/"+layer.String(), "", nil), http.StatusOK)
	must(t, ask(t, r, http.MethodHead, "/v2/a/blobs/"+orphan.String(), "", nil), http.StatusNotFound)
}

// A push asks what is there, and sends the manifest last: what it was told is
// there has to be there still.
func TestASweepSparesWhatAPushWasToldIsThere(t *testing.T) {
	everywhere(t, testASweepSparesWhatAPushWasToldIsThere)
}

func testASweepSparesWhatAPushWasToldIsThere(t *testing.T, r *Registry) {
	config, layer := pushBlob(t, r, "a", []byte("{}")), pushBlob(t, r, "a", []byte("layer"))
	age(t, r, 2*time.Hour)
	for _, d := range []digest.Digest{config, layer} {
		must(t, ask(t, r, http.MethodHead, "/v2/a/blobs/"+d.String(), "", nil), http.StatusOK)
	}
	if report, err := r.GarbageCollect(t.Context(), Collection{}); err != nil || report.Blobs != 0 {
		t.Fatalf("collected %+v, %v", report, err)
	}
	pushManifest(t, r, "a", "1.0.0", config, layer, 5)
}

func TestPushesAndSweepsAtTheSameTime(t *testing.T) {
	everywhere(t, testPushesAndSweepsAtTheSameTime)
}

func testPushesAndSweepsAtTheSameTime(t *testing.T, r *Registry) {
	done := make(chan struct{})
	var sweeps sync.WaitGroup
	sweeps.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if _, err := r.GarbageCollect(context.Background(), Collection{}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range 10 {
		config, content := pushBlob(t, r, "a", []byte("{}")), fmt.Appendf(nil, "layer %d", i)
		pushManifest(t, r, "a", fmt.Sprintf("1.0.%d", i), config, pushBlob(t, r, "a", content), len(content))
	}
	close(done)
	sweeps.Wait()
}

func TestWhatATagLeftIsKeptUnlessAskedFor(t *testing.T) {
	everywhere(t, testWhatATagLeftIsKeptUnlessAskedFor)
}

func testWhatATagLeftIsKeptUnlessAskedFor(t *testing.T, r *Registry) {
	config := pushBlob(t, r, "a", []byte("{}"))
	old := pushManifest(t, r, "a", "1.0.0", config, pushBlob(t, r, "a", []byte("old")), 3)
	pushManifest(t, r, "a", "1.0.0", config, pushBlob(t, r, "a", []byte("new")), 3)
	age(t, r, 2*time.Hour)
	if report, err := r.GarbageCollect(t.Context(), Collection{}); err != nil || report.Manifests+report.Blobs != 0 {
		t.Fatalf("a task may name it by digest: %+v, %v", report, err)
	}
	must(t, ask(t, r, http.MethodHead, "/v2/a/manifests/"+old.String(), "", nil), http.StatusOK)
	if report, err := r.GarbageCollect(t.Context(), Collection{Untagged: true}); err != nil || report.Manifests != 1 || report.Blobs != 2 {
		t.Fatalf("collected %+v, %v", report, err)
	}
	must(t, ask(t, r, http.MethodHead, "/v2/a/manifests/1.0.0", "", nil), http.StatusOK)
}

func TestKeepSweepsWhatWasRemoved(t *testing.T) {
	everywhere(t, testKeepSweepsWhatWasRemoved)
}

func testKeepSweepsWhatWasRemoved(t *testing.T, r *Registry) {
	config := pushBlob(t, r, "a", []byte("{}"))
	d := pushManifest(t, r, "a", "1.0.0", config, pushBlob(t, r, "a", []byte("layer")), 5)
	must(t, ask(t, r, http.MethodDelete, "/v2/a/manifests/"+d.String(), "", nil), http.StatusAccepted)
	age(t, r, 2*time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	r.Keep(ctx, func(report Report, err error) {
		if err != nil || report.Blobs != 3 {
			t.Errorf("collected %+v, %v", report, err)
		}
		cancel()
	})
	if r.littered(t.Context()) {
		t.Error("it is to be swept again")
	}
}

func TestManifestsSayWhenTheyWereStored(t *testing.T) {
	everywhere(t, testManifestsSayWhenTheyWereStored)
}

func testManifestsSayWhenTheyWereStored(t *testing.T, r *Registry) {
	config := pushBlob(t, r, "a", []byte("{}"))
	d := pushManifest(t, r, "a", "1.0.0", config, pushBlob(t, r, "a", []byte("layer")), 5)
	for _, reference := range []string{"1.0.0", d.String()} {
		w := must(t, ask(t, r, http.MethodGet, "/v2/a/manifests/"+reference, "", nil), http.StatusOK)
		if at, err := http.ParseTime(w.Header().Get("Last-Modified")); err != nil || time.Since(at) > time.Minute {
			t.Errorf("%s was stored at %q", reference, w.Header().Get("Last-Modified"))
		}
	}
}

// refusing is a disk that takes no more.
type refusing struct {
	driver.StorageDriver
	err error
}

func (r refusing) PutContent(context.Context, string, []byte) error {
	return &fs.PathError{Op: "write", Path: "x", Err: r.err}
}

func (r refusing) Writer(ctx context.Context, path string, appending bool) (driver.FileWriter, error) {
	w, err := r.StorageDriver.Writer(ctx, path, appending)
	return refusingWriter{w, r.err}, err
}

type refusingWriter struct {
	driver.FileWriter
	err error
}

func (w refusingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestADiskThatRefusesIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		text   string
	}{
		"full":      {syscall.ENOSPC, http.StatusInsufficientStorage, "the registry's disk is full"},
		"quota":     {syscall.EDQUOT, http.StatusInsufficientStorage, "the registry's disk is full"},
		"read-only": {syscall.EROFS, http.StatusInternalServerError, "may not write into its folder"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			whole, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer whole.Close()
			must(t, ask(t, whole, http.MethodPost, "/v2/a/blobs/uploads/", "", nil), http.StatusAccepted)
			r, err := open(dir, refusing{disk{dir}, c.err})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			w := ask(t, r, http.MethodPost, "/v2/a/blobs/uploads/", "", nil)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) || strings.Contains(w.Body.String(), dir) {
				t.Errorf("the answer is %d %s", w.Code, w.Body)
			}
		})
	}
}

func TestDiskAsAStorageDriver(t *testing.T) {
	ctx, d := t.Context(), disk{t.TempDir()}
	var notFound driver.PathNotFoundError
	var invalid driver.InvalidPathError
	if _, err := d.GetContent(ctx, "/a/b"); !errors.As(err, &notFound) {
		t.Errorf("what isn't there: %v", err)
	}
	for _, key := range []string{"a", "", "/a//b", "/a/../../x", "/a/b/"} {
		if _, err := d.GetContent(ctx, key); !errors.As(err, &invalid) && !errors.As(err, &notFound) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	if err := d.PutContent(ctx, "/a/b", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.GetContent(ctx, "/a/b/c"); !errors.As(err, &notFound) {
		t.Errorf("below a file: %v", err)
	}
	w, err := d.Writer(ctx, "/a/c", false)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "12")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err = d.Writer(ctx, "/a/c", true); err != nil || w.Size() != 2 {
		t.Fatalf("appending begins at %d, %v", w.Size(), err)
	}
	_, _ = io.WriteString(w, "34")
	if err := errors.Join(w.Commit(ctx), w.Close()); err != nil || w.Size() != 4 {
		t.Fatal(w.Size(), err)
	}
	if err := w.Close(); err == nil {
		t.Error("closed twice")
	}
	r, err := d.Reader(ctx, "/a/c", 3)
	if err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r)
	r.Close()
	if string(rest) != "4" {
		t.Errorf("from 3 on it has %q", rest)
	}
	if err := d.Move(ctx, "/a/c", "/d/e"); err != nil {
		t.Fatal(err)
	}
	info, err := d.Stat(ctx, "/d/e")
	if err != nil || info.Size() != 4 || info.IsDir() || info.Path() != "/d/e" {
		t.Errorf("%+v, %v", info, err)
	}
	if keys, err := d.List(ctx, "/"); err != nil || !slices.Equal(keys, []string{"/a", "/d"}) {
		t.Errorf("%v, %v", keys, err)
	}
	if w, err = d.Writer(ctx, "/f", false); err != nil || w.Cancel(ctx) != nil {
		t.Error(err)
	}
	if err := d.Delete(ctx, "/f"); !errors.As(err, &notFound) {
		t.Errorf("what was cancelled is there: %v", err)
	}
	if err := d.Delete(ctx, "/d"); err != nil {
		t.Error(err)
	}
}
