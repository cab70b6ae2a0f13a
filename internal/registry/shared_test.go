package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/internal/objects/objecttest"
)

// two are the registries of two servers on one store.
func two(t *testing.T) (a, b *Registry, store *objecttest.Memory) {
	t.Helper()
	store = &objecttest.Memory{}
	var both [2]*Registry
	for i := range both {
		r, err := OpenShared(t.TempDir(), store)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		r.shared.wait = time.Millisecond
		both[i] = r
	}
	return both[0], both[1], store
}

func TestWhatOneServerTakesAnotherGives(t *testing.T) {
	a, b, _ := two(t)
	config, layer := pushBlob(t, a, "team/a", []byte("{}")), pushBlob(t, a, "team/a", []byte("layer"))
	d := pushManifest(t, a, "team/a", "1.0.0", config, layer, 5)
	w := must(t, ask(t, b, http.MethodGet, "/v2/team/a/manifests/1.0.0", "", nil), http.StatusOK)
	if got := digest.FromBytes(w.Body.Bytes()); got != d {
		t.Errorf("the manifest is %s, not %s", got, d)
	}
	if got := must(t, ask(t, b, http.MethodGet, "/v2/team/a/blobs/"+layer.String(), "", nil), http.StatusOK).Body.String(); got != "layer" {
		t.Errorf("the blob is %q", got)
	}
	if got := must(t, ask(t, b, http.MethodGet, "/v2/_catalog", "", nil), http.StatusOK).Body.String(); !strings.Contains(got, `"team/a"`) {
		t.Errorf("the catalog is %s", got)
	}
	if got := must(t, ask(t, b, http.MethodGet, "/v2/team/a/tags/list", "", nil), http.StatusOK).Body.String(); !strings.Contains(got, `"1.0.0"`) {
		t.Errorf("the tags are %s", got)
	}
	must(t, ask(t, b, http.MethodDelete, "/v2/team/a/manifests/"+d.String(), "", nil), http.StatusAccepted)
	must(t, ask(t, a, http.MethodGet, "/v2/team/a/manifests/1.0.0", "", nil), http.StatusNotFound)
	if !a.littered(t.Context()) {
		t.Error("nobody knows that there is garbage")
	}
}

// A sweep of one server is stopped between the look whether a blob is claimed
// and its removal; then another server is asked for it by a push.
func TestAPushWaitsForASweepOfAnotherServer(t *testing.T) {
	a, b, store := two(t)
	config, layer := pushBlob(t, a, "a", []byte("{}")), pushBlob(t, a, "a", []byte("layer"))
	age(t, a, 2*time.Hour)
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	store.Before = func(operation, key string) error {
		if operation == "delete" && strings.HasSuffix(key, "/data") {
			once.Do(func() {
				close(reached)
				<-goOn
			})
		}
		return nil
	}
	swept := make(chan error)
	go func() {
		_, err := a.GarbageCollect(context.Background(), Collection{})
		swept <- err
	}()
	<-reached
	asked := make(chan int)
	go func() { asked <- ask(t, b, http.MethodHead, "/v2/a/blobs/"+layer.String(), "", nil).Code }()
	select {
	case code := <-asked:
		if code == http.StatusOK {
			t.Error("a push was told that a blob is there that is removed at this moment")
		}
	case <-time.After(50 * time.Millisecond): // it waits
	}
	pushed := make(chan struct{})
	go func() {
		defer close(pushed)
		pushBlob(t, b, "a", []byte("layer")) // for another push it isn't there
	}()
	close(goOn)
	if err := <-swept; err != nil {
		t.Error(err)
	}
	<-pushed
	pushBlob(t, b, "a", []byte("{}"))
	pushManifest(t, b, "a", "1.0.0", config, layer, 5)
	must(t, ask(t, a, http.MethodGet, "/v2/a/blobs/"+layer.String(), "", nil), http.StatusOK)
}

func TestPushesOfOneServerAndSweepsOfAnother(t *testing.T) {
	a, b, store := two(t)
	done := make(chan struct{})
	var sweeps sync.WaitGroup
	for _, r := range []*Registry{a, b} {
		sweeps.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, key := range store.Keys() { // what nobody refers to is old at once
					if strings.HasSuffix(key, "/data") {
						store.Age(key, 2*time.Hour)
					}
				}
				if _, err := r.GarbageCollect(context.Background(), Collection{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	// A push whose blob is swept is refused, and done again; what was taken is there.
	pulled := 0
	for i := range 20 {
		content := fmt.Appendf(nil, "layer %d", i%3)
		for range 50 {
			if tryPush(t, b, fmt.Sprintf("1.0.%d", i), content) {
				must(t, ask(t, a, http.MethodGet, "/v2/a/blobs/"+digest.FromBytes(content).String(), "", nil), http.StatusOK)
				must(t, ask(t, a, http.MethodGet, "/v2/a/blobs/"+digest.FromBytes([]byte("{}")).String(), "", nil), http.StatusOK)
				pulled++
				break
			}
		}
	}
	close(done)
	sweeps.Wait()
	if pulled == 0 {
		t.Error("nothing could be pushed")
	}
}

// tryPush pushes as clients do: what is there isn't sent.
func tryPush(t *testing.T, r *Registry, tag string, layer []byte) bool {
	t.Helper()
	for _, content := range [][]byte{[]byte("{}"), layer} {
		d := digest.FromBytes(content)
		if ask(t, r, http.MethodHead, "/v2/a/blobs/"+d.String(), "", nil).Code == http.StatusOK {
			continue
		}
		location := ask(t, r, http.MethodPost, "/v2/a/blobs/uploads/", "", nil).Header().Get("Location")
		if ask(t, r, http.MethodPut, location+"&digest="+d.String(), "application/octet-stream", content).Code != http.StatusCreated {
			return false
		}
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}],"annotations":{"tag":%q}}`,
		ociManifest, digest.FromString("{}"), digest.FromBytes(layer), len(layer), tag)
	return ask(t, r, http.MethodPut, "/v2/a/manifests/"+tag, ociManifest, manifest).Code == http.StatusCreated
}

func TestStorageOutOfReachIsSaid(t *testing.T) {
	a, _, store := two(t)
	config, layer := pushBlob(t, a, "a", []byte("{}")), pushBlob(t, a, "a", []byte("layer"))
	pushManifest(t, a, "a", "1.0.0", config, layer, 5)
	store.Reachable(false)
	for _, c := range []struct{ method, path string }{
		{http.MethodGet, "/v2/a/manifests/1.0.0"},
		{http.MethodGet, "/v2/a/blobs/" + layer.String()},
		{http.MethodGet, "/v2/a/tags/list"},
		{http.MethodPut, "/v2/a/manifests/2.0.0"},
	} {
		w := ask(t, a, c.method, c.path, ociManifest, []byte(`{"schemaVersion":2,"mediaType":"`+ociManifest+`","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+config.String()+`","size":2},"layers":[]}`))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "the store in memory can't be reached") {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	store.Reachable(true)
	must(t, ask(t, a, http.MethodGet, "/v2/a/manifests/1.0.0", "", nil), http.StatusOK)
}
