package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

// stub speaks as much of the API of many clusters as Berth uses, each at an
// address of its own (127.1.0.0/16), with one namespace. Its pods end well at
// once. Faults are injected: answers 429 and 500, calls that hang, connections
// that are cut, watches that end.
type stub struct {
	server   *http.Server
	port     int
	ca       []byte
	faults   atomic.Int64 // of 1,000 calls so many fail
	injected atomic.Int64
	version  atomic.Int64

	mu       sync.Mutex
	clusters map[string]*simulatedCluster // by host
}

// simulatedCluster is one of them.
type simulatedCluster struct {
	mu       sync.Mutex
	pods     map[string]*corev1.Pod
	watchers map[chan []byte]bool
}

// stubName is whose certificate all infrastructures have.
const stubName = "stub"

func stubAddress(i int) net.IP { return net.IPv4(127, 1, byte(i/250), byte(i%250+1)) }

func newStub(clusters int) (*stub, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stub"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	template.DNSNames = []string{stubName} // addresses of all would make a kubeconfig long
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	s := &stub{port: l.Addr().(*net.TCPAddr).Port, ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), clusters: map[string]*simulatedCluster{}}
	s.version.Store(1)
	s.server = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: time.Minute, ErrorLog: nil,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12},
	}
	go func() { _ = s.server.ServeTLS(l, "", "") }()
	return s, nil
}

func (s *stub) cluster(r *http.Request) *simulatedCluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusters[r.Host]
	if c == nil {
		c = &simulatedCluster{pods: map[string]*corev1.Pod{}, watchers: map[chan []byte]bool{}}
		s.clusters[r.Host] = c
	}
	return c
}

func (s *stub) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"major": "1", "minor": "34", "gitVersion": "v1.34.4"})
	})
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: r.PathValue("namespace"), UID: types.UID("ns-" + r.Host)}})
	})
	const pods = "/api/v1/namespaces/{namespace}/pods"
	mux.HandleFunc("GET "+pods, s.list)
	mux.HandleFunc("POST "+pods, s.create)
	mux.HandleFunc("DELETE "+pods+"/{name}", s.remove)
	mux.HandleFunc("GET "+pods+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		c := s.cluster(r)
		c.mu.Lock()
		defer c.mu.Unlock()
		if pod := c.pods[r.PathValue("name")]; pod != nil {
			answer(w, http.StatusOK, pod)
			return
		}
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	})
	mux.HandleFunc("GET "+pods+"/{name}/log", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "2020-01-01T00:00:00Z a simulated container\n")
	})
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/events", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			<-r.Context().Done()
			return
		}
		answer(w, http.StatusOK, &corev1.EventList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "EventList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}})
	})
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusCreated, map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "status": map[string]any{"allowed": false}})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.fault(w, r) {
			mux.ServeHTTP(w, r)
		}
	})
}

// fault answers in place of the API server now and then.
func (s *stub) fault(w http.ResponseWriter, r *http.Request) (goOn bool) {
	if mathrand.Int64N(1000) >= s.faults.Load() {
		return true
	}
	s.injected.Add(1)
	switch mathrand.IntN(5) {
	case 0:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests)
	case 1:
		refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
	case 2: // done, and nobody is told
		return false
	case 3:
		select {
		case <-r.Context().Done():
		case <-time.After(3 * time.Second):
		}
		return true
	default:
		panic(http.ErrAbortHandler)
	}
	return false
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	answer(w, code, &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason)})
}

func (s *stub) list(w http.ResponseWriter, r *http.Request) {
	c := s.cluster(r)
	if r.URL.Query().Get("watch") != "" {
		s.watch(w, r, c)
		return
	}
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
	c.mu.Lock()
	for _, pod := range c.pods {
		list.Items = append(list.Items, *pod)
	}
	list.ResourceVersion = strconv.FormatInt(s.version.Load(), 10)
	c.mu.Unlock()
	answer(w, http.StatusOK, list)
}

// watch sends what changes. It remembers nothing: what is asked for from before
// now is gone, but where nothing has changed since.
func (s *stub) watch(w http.ResponseWriter, r *http.Request, c *simulatedCluster) {
	events := make(chan []byte, 10_000)
	c.mu.Lock()
	c.watchers[events] = true
	for _, pod := range c.pods {
		events <- watchEvent("MODIFIED", pod)
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watchers, events)
		c.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	var cut <-chan time.Time
	if s.faults.Load() > 0 {
		cut = time.After(time.Duration(5+mathrand.IntN(60)) * time.Second)
	}
	for {
		select {
		case event := <-events:
			_, _ = w.Write(event)
			_ = flush.Flush()
		case <-cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func watchEvent(kind string, pod *corev1.Pod) []byte {
	event, _ := json.Marshal(map[string]any{"type": kind, "object": pod})
	return append(event, '\n')
}

// changed tells of a pod as it is now; c.mu is held.
func (s *stub) changed(c *simulatedCluster, kind string, pod *corev1.Pod) {
	pod.ResourceVersion = strconv.FormatInt(s.version.Add(1), 10)
	event := watchEvent(kind, pod)
	for ch := range c.watchers {
		select {
		case ch <- event:
		default:
		}
	}
}

func (s *stub) create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var object runtime.Object
	if err == nil {
		object, _, err = scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	}
	pod, ok := object.(*corev1.Pod)
	if err != nil || !ok {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	pod.UID, pod.CreationTimestamp, pod.Namespace = types.UID(fmt.Sprint("uid-", s.version.Add(1))), metav1.Now(), r.PathValue("namespace")
	pod.Status.Phase = corev1.PodPending
	c := s.cluster(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pods[pod.Name] != nil {
		refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
		return
	}
	if strings.Contains(r.URL.RawQuery, "dryRun") {
		answer(w, http.StatusCreated, pod)
		return
	}
	c.pods[pod.Name] = pod
	s.changed(c, "ADDED", pod)
	answer(w, http.StatusCreated, pod)
	name := pod.Name
	time.AfterFunc(100*time.Millisecond, func() { s.finish(c, name) })
}

// finish lets a pod end.
func (s *stub) finish(c *simulatedCluster, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pod := c.pods[name]
	if pod == nil {
		return
	}
	pod = pod.DeepCopy()
	c.pods[name] = pod
	now := metav1.Now()
	pod.Spec.NodeName, pod.Status.Phase = "node", corev1.PodSucceeded
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", Image: image, ImageID: image, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: now, FinishedAt: now, Reason: "Completed"}}}}
	s.changed(c, "MODIFIED", pod)
}

func (s *stub) remove(w http.ResponseWriter, r *http.Request) {
	c := s.cluster(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	pod := c.pods[r.PathValue("name")]
	if pod == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	delete(c.pods, pod.Name)
	pod = pod.DeepCopy()
	zero := int64(0)
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, &zero
	s.changed(c, "DELETED", pod)
	answer(w, http.StatusOK, pod)
}
