package images

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/registry"
)

// quick doesn't wait before it tries again.
func quick(s *Store) *Store {
	s.options = append(s.options, remote.WithRetryBackoff(remote.Backoff{Duration: time.Millisecond, Factor: 1, Steps: 2}))
	return s
}

func testRegistry(t *testing.T) *registry.Registry {
	t.Helper()
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// local is a store without a port.
func local(t *testing.T) *Store {
	return quick(Local(HandlerTransport{testRegistry(t)}))
}

func example(name, version string) berth.Package {
	return berth.Package{
		Name: name, Version: version, Kind: "ecu", Description: "Counts words.", WorkDir: "/opt/wd", Entrypoint: berth.Entrypoint{Kind: "task", Exec: "run.sh"},
		Functions: []berth.Function{{Name: "tally", Capture: berth.CaptureComplete, Inputs: []berth.Parameter{{Name: "text", Type: "string"}}, Outputs: []berth.Parameter{{Name: "n", Type: "integer"}}}},
	}
}

func annotate(p berth.Package) (map[string]string, error) {
	data, err := json.Marshal(p)
	return map[string]string{Annotation: string(data)}, err
}

// image is a package of random layers.
func image(t *testing.T, p berth.Package, layers int64) v1.Image {
	t.Helper()
	i, err := random.Image(32<<10, layers)
	if err != nil {
		t.Fatal(err)
	}
	config, err := i.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	if i, err = mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(i, types.OCIManifestSchema1), types.OCIConfigJSON), config); err != nil {
		t.Fatal(err)
	}
	annotations, err := annotate(p)
	if err != nil {
		t.Fatal(err)
	}
	return mutate.Annotations(i, annotations).(v1.Image)
}

func push(t *testing.T, s *Store, a remote.Taggable, p berth.Package) string {
	t.Helper()
	digest, err := s.Push(t.Context(), a, p.Name, p.Version, nil)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestAPackageComesBackAsItWas(t *testing.T) {
	s := local(t)
	want := example("words", "1.0.0")
	before := time.Now().Add(-2 * time.Second)
	digest := push(t, s, image(t, want, 3), want)
	got, err := s.Inspect(t.Context(), "words", "")
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != digest || got.Size < 3*32<<10 || !cmp.Equal(got.Platforms, []string{"linux/amd64"}) || got.CreatedAt.Before(before) {
		t.Errorf("the store says %s, %d bytes, %v, %s", got.Digest, got.Size, got.Platforms, got.CreatedAt)
	}
	got.Digest, got.Size, got.Platforms, got.CreatedAt = "", 0, nil, time.Time{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Inspect(t.Context(), "words", digest); err != nil {
		t.Errorf("by digest: %v", err)
	}
}

func TestListAndSearch(t *testing.T) {
	s := local(t)
	if list, err := s.List(t.Context(), ""); err != nil || len(list) > 0 {
		t.Fatalf("an empty store has %v, %v", list, err)
	}
	for _, v := range []string{"1.9.0", "1.10.0", "2.0.0-rc.1"} {
		p := example("words", v)
		push(t, s, image(t, p, 1), p)
	}
	other := example("geo", "0.1.0")
	other.Description, other.Functions[0].Name = "Distances.", "distance"
	push(t, s, image(t, other, 1), other)
	plain, _ := random.Image(100, 1)
	if _, err := s.Push(t.Context(), plain, "no-package", "1.0.0", nil); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":            "geo@0.1.0 words@1.9.0 words@1.10.0 words@2.0.0-rc.1",
		"TALLY words": "words@1.9.0 words@1.10.0 words@2.0.0-rc.1",
		"dist":        "geo@0.1.0",
		"geo words":   "",
	} {
		list, err := s.List(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, p := range list {
			have = append(have, p.Name+"@"+p.Version)
		}
		if got := strings.Join(have, " "); got != want {
			t.Errorf("search %q gives %q, want %q", text, got, want)
		}
	}
	if p, err := s.Inspect(t.Context(), "words", ""); err != nil || p.Version != "1.10.0" {
		t.Errorf("the newest is %s, %v", p.Version, err)
	}
	for _, c := range []struct{ name, version, want string }{
		{"nothing", "", "there is no package nothing in Berth's own registry"},
		{"nothing", "1.0.0", "there is no package nothing in Berth's own registry"},
		{"words", "3.0.0", "package words has no version 3.0.0 in Berth's own registry; it has 1.9.0, 1.10.0, 2.0.0-rc.1"},
	} {
		if _, err := s.Inspect(t.Context(), c.name, c.version); berth.CodeOf(err) != berth.CodeNotFound || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s@%s: %v", c.name, c.version, err)
		}
	}
	if _, err := s.Inspect(t.Context(), "no-package", "1.0.0"); berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("an image that is no package: %v", err)
	}
}

func TestRemoveAndCollect(t *testing.T) {
	r := testRegistry(t)
	s := quick(Local(HandlerTransport{r}))
	gone, stays := example("words", "1.0.0"), example("words", "1.1.0")
	push(t, s, image(t, gone, 3), gone)
	push(t, s, image(t, stays, 2), stays)
	if err := s.Remove(t.Context(), "words", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "words", "1.0.0"); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
	if report, err := r.GarbageCollect(t.Context(), registry.Collection{}); err != nil || report.Blobs != 0 {
		t.Errorf("what is young was removed: %+v, %v", report, err)
	}
	report, err := r.GarbageCollect(t.Context(), registry.Collection{MinAge: -1})
	if err != nil || report.Blobs != 5 || report.Bytes < 3*32<<10 { // layers, configuration, manifest
		t.Errorf("collected %+v, %v", report, err)
	}
	path := filepath.Join(t.TempDir(), "words.tar")
	if _, err := s.Pull(t.Context(), "words", "", path); err != nil {
		t.Errorf("what stays can't be read: %v", err)
	}
}

func TestAnIndexGoesWithItsImages(t *testing.T) {
	r := testRegistry(t)
	s := quick(Local(HandlerTransport{r}))
	p := example("words", "1.0.0")
	annotations, err := annotate(p)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: image(t, p, 1), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: image(t, p, 1), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	push(t, s, mutate.Annotations(index, annotations).(v1.ImageIndex), p)
	if got, err := s.Inspect(t.Context(), "words", "1.0.0"); err != nil || len(got.Platforms) != 2 || got.Size < 2*32<<10 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Remove(t.Context(), "words", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	report, err := r.GarbageCollect(t.Context(), registry.Collection{MinAge: -1})
	if err != nil || report.Kept != 0 || report.Blobs != 7 {
		t.Errorf("collected %+v, %v", report, err)
	}
}

func TestArchivesAreWhatOthersRead(t *testing.T) {
	s := local(t)
	p := example("words", "1.0.0")
	pushed := image(t, p, 2)
	digest := push(t, s, pushed, p)
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "docker.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.DockerArchive(t.Context(), file, "words", digest, "linux/amd64"), file.Close()); err != nil {
		t.Fatal(err)
	}
	read, err := tarball.ImageFromPath(file.Name(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := pushed.ConfigName()
	if got, err := read.ConfigName(); err != nil || got != want {
		t.Errorf("the archive has %s, %v; want %s", got, err, want)
	}
	// What containerd imports: an OCI layout, whose image has the name that was asked for.
	if _, err := s.Pull(t.Context(), "words", "1.0.0", filepath.Join(dir, "oci.tar")); err != nil {
		t.Fatal(err)
	}
	archive, err := os.Open(filepath.Join(dir, "oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	blobs, named := 0, ""
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(h.Name, "blobs/sha256/") && h.Typeflag == tar.TypeReg:
			blobs++
		case h.Name == "index.json":
			index, err := v1.ParseIndexManifest(r)
			if err != nil {
				t.Fatal(err)
			}
			named = index.Manifests[0].Digest.String() + " " + index.Manifests[0].Annotations["io.containerd.image.name"]
		}
	}
	if blobs != 4 || named != digest+" "+LocalHost+"/words:1.0.0" {
		t.Errorf("the archive has %d blobs and %s", blobs, named)
	}
}

func TestCopyFromStoreToStore(t *testing.T) {
	from, to := local(t), local(t)
	p := example("words", "1.0.0")
	digest := push(t, from, image(t, p, 2), p)
	p, err := from.Inspect(t.Context(), "words", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), from, to, "words", p, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := to.Inspect(t.Context(), "words", "1.0.0"); err != nil || got.Digest != digest {
		t.Errorf("the copy is %s, %v", got.Digest, err)
	}
}

// dying ends every connection once it was sent some bytes.
type dying struct {
	http.Handler
	left atomic.Int64
	sent atomic.Int64
}

func (d *dying) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.left.Load() <= 0 {
		panic(http.ErrAbortHandler)
	}
	r.Body = &metered{r.Body, d}
	d.Handler.ServeHTTP(w, r)
}

type metered struct {
	io.ReadCloser
	d *dying
}

func (m *metered) Read(p []byte) (int, error) {
	if m.d.left.Load() <= 0 {
		panic(http.ErrAbortHandler)
	}
	n, err := m.ReadCloser.Read(p[:min(len(p), 4096)])
	m.d.left.Add(int64(-n))
	m.d.sent.Add(int64(n))
	return n, err
}

// wireSize is how many bytes a push of i to an empty registry sends: the layers, the config and the manifest.
func wireSize(t *testing.T, i v1.Image) int64 {
	t.Helper()
	m, err := i.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := i.Size() // of the manifest
	if err != nil {
		t.Fatal(err)
	}
	size += m.Config.Size
	for _, l := range m.Layers {
		size += l.Size
	}
	return size
}

func TestAPushGoesOnWhereARegistryDied(t *testing.T) {
	d := &dying{Handler: testRegistry(t)}
	d.left.Store(160 << 10) // four blobs are sent at a time: one at least is whole
	server := httptest.NewServer(d)
	server.Config.ErrorLog = nil
	defer server.Close()
	s := quick(Remote(strings.TrimPrefix(server.URL, "http://"), nil))
	p := example("words", "1.0.0")
	i := image(t, p, 8) // of 32 KiB each
	_, err := s.Push(t.Context(), i, p.Name, p.Version, nil)
	if berth.CodeOf(err) != berth.CodeUnavailable || !strings.Contains(err.Error(), "what arrived is kept") {
		t.Fatalf("the push ended with %v", err)
	}
	d.left.Store(1 << 30)
	d.sent.Store(0)
	push(t, s, i, p)
	if sent, whole := d.sent.Load(), wireSize(t, i); sent > whole-32<<10 {
		t.Errorf("%d bytes of %d were sent again", sent, whole)
	}
	if _, err := s.Pull(t.Context(), "words", "", filepath.Join(t.TempDir(), "x.tar")); err != nil {
		t.Error(err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"login": func(w http.ResponseWriter, r *http.Request) {
			if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "right" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			}
		},
		"full": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusInsufficientStorage)
			} else if r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusNotFound)
			}
		},
		"full, of an older registry": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusInternalServerError)
				fmt.Fprint(w, `{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":"write /x: no space left on device"}]}`)
			} else if r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusNotFound)
			}
		},
		"forbidden": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"read only"}]}`)
			}
		},
	}
	for name, c := range map[string]struct {
		code berth.ErrorCode
		text string
	}{
		"login":                      {berth.CodeUnauthorized, "docker login 127.0.0.1"},
		"full":                       {berth.CodeExhausted, "disk is full"},
		"full, of an older registry": {berth.CodeExhausted, "disk is full"},
		"forbidden":                  {berth.CodeForbidden, "refuses that"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answers[name])
			defer server.Close()
			s := quick(Remote(strings.TrimPrefix(server.URL, "http://"), nil))
			s.options = append(s.options, remote.WithAuthFromKeychain(keychain{"me", "wrong"}))
			p := example("words", "1.0.0")
			_, err := s.Push(t.Context(), image(t, p, 1), p.Name, p.Version, nil)
			if berth.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "wrong\"") {
				t.Errorf("%s: %v", berth.CodeOf(err), err)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		s := quick(Remote(strings.TrimPrefix(server.URL, "http://"), nil))
		if _, err := s.Inspect(t.Context(), "words", ""); berth.CodeOf(err) != berth.CodeUnavailable {
			t.Errorf("%s: %v", berth.CodeOf(err), err)
		}
	})
	t.Run("a server's own, which docker login has nothing to do with", func(t *testing.T) {
		s := quick(Local(HandlerTransport{answers["login"]}))
		if _, err := s.List(t.Context(), ""); berth.CodeOf(err) != berth.CodeUnauthorized || strings.Contains(err.Error(), "docker login") {
			t.Errorf("%s: %v", berth.CodeOf(err), err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := local(t).List(ctx, ""); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

type keychain struct{ user, password string }

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: k.user, Password: k.password}, nil
}

func TestPlainHTTPIsForLoopbackOnly(t *testing.T) {
	for host, allowed := range map[string]bool{"10.1.2.3:5000": false, "127.example.com": false, "localhost.example.com": false, "127.0.0.1:5000": true, "localhost:5000": true} {
		reached := false
		s := quick(Remote(host, roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Scheme == "https" {
				return nil, io.ErrUnexpectedEOF
			}
			reached = true
			return &http.Response{StatusCode: http.StatusNotFound, Body: io.NopCloser(bytes.NewReader(nil)), Request: r}, nil
		})))
		s.insecure = true // as the library does by itself for private addresses
		_, err := s.Inspect(t.Context(), "words", "")
		if reached != allowed {
			t.Errorf("%s: plain http was used: %t (%v)", host, reached, err)
		}
	}
}

// Of a private address the library tries TLS, and then HTTP, which we refuse.
func TestAPrivateRegistryThatIsNotTrustedIsToldAsThat(t *testing.T) {
	for want, failure := range map[string]error{
		"not trusted here":   &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"does not speak TLS": errors.New("server gave HTTP response to HTTPS client"),
	} {
		s := quick(Remote("10.1.2.3:5000", roundTripper(func(*http.Request) (*http.Response, error) { return nil, failure })))
		if _, err := s.List(t.Context(), ""); err == nil || !strings.HasPrefix(err.Error(), "cannot list the packages of registry 10.1.2.3:5000: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestAPanicOfTheHandlerIsAnError(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"before the answer": func(http.ResponseWriter, *http.Request) { panic("oops") },
		"within the answer": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "some")
			panic(http.ErrAbortHandler)
		},
	} {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
		response, err := HandlerTransport{h}.RoundTrip(request)
		if err == nil {
			_, err = io.ReadAll(response.Body)
		}
		if err == nil || !strings.Contains(err.Error(), "the handler gave up") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHandlerTransportStreams(t *testing.T) {
	transport := HandlerTransport{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buffer := make([]byte, 1)
		for {
			if _, err := r.Body.Read(buffer); err != nil {
				return
			}
			_, _ = w.Write(buffer)
		}
	})}
	reader, writer := io.Pipe()
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", reader)
	go writer.Write([]byte("a"))
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	for _, want := range "abc" {
		if _, err := io.ReadFull(response.Body, one); err != nil || one[0] != byte(want) {
			t.Fatalf("read %q, %v", one, err)
		}
		go writer.Write([]byte{byte(want) + 1})
	}
	response.Body.Close()
	writer.Close()
}

func TestVersionsInOrder(t *testing.T) {
	order := []string{"latest", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0", "2.0.0"}
	for i := 1; i < len(order); i++ {
		if CompareVersions(order[i-1], order[i]) >= 0 || CompareVersions(order[i], order[i-1]) <= 0 {
			t.Errorf("%s and %s", order[i-1], order[i])
		}
	}
	if got := newest([]string{"latest", "1.0.0", "1.1.0", "2.0.0-rc.1"}); got != "1.1.0" {
		t.Errorf("the newest is %s", got)
	}
}
