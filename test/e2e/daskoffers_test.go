//go:build e2e

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// Where pods reach a server by callback_to, heads open connections to it and
// clients come through these, not through the API server. They come again after a
// server was killed; who is not the head is not let in.
func TestDaskClientsComeByConnectionsOfTheHead(t *testing.T) {
	for _, kind := range []string{"debian", "pypi"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "clusters")
			host := hostIP(t)
			o := &office{site: s, address: host + ":" + freePort(t, host)}
			o.infra("callback_to: " + o.address + "\n")
			o.start()
			t.Cleanup(func() { o.stop(syscall.SIGTERM) })
			token := strings.TrimSpace(o.must("server", "token", "create", "prometheus", "--role", "read"))
			came := func(way string) int {
				t.Helper()
				_, text := o.ask(http.MethodGet, "/metrics", token, nil)
				count := regexp.MustCompile(`berth_cluster_connections_total\{way="` + way + `"\} (\d+)`).FindStringSubmatch(text)
				if count == nil {
					t.Fatalf("no count of those by %s:\n%s", way, text)
				}
				n, _ := strconv.Atoi(count[1])
				return n
			}
			image, _ := daskImage(t, kind)
			c := o.createDask("offering", image, 1, append([]string{"--workers", "1"}, small...)...)
			conn, _ := o.remote().connect("offering", "--any-versions")
			reach := func() { // the scheduler says the first word
				t.Helper()
				scheduler := conn.dial(t)
				defer scheduler.Close()
				if _, err := io.ReadFull(scheduler, make([]byte, 8)); err != nil {
					t.Errorf("the scheduler says nothing: %v", err)
				}
			}
			waitFor(t, "clients come by connections of the head", time.Minute, func() bool { reach(); return came("callback") > 0 })
			if kind == "debian" { // the Dask that this machine has as well
				if out := o.python(conn.client() + "say(client.submit(sum, range(100)).result(60))\n"); out != "4950\n" {
					t.Errorf("it says %q", out)
				}
			}
			o.stop(syscall.SIGKILL)
			o.start()
			waitFor(t, "clients come by connections of the head again", time.Minute, func() bool {
				reach()
				return came("callback") > 0
			})

			secret, err := admin.CoreV1().Secrets(o.namespace).Get(background, berth.ClusterSecretName(c.ID), metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var offer struct{ URL, Token string }
			if err := json.Unmarshal(secret.Data[berth.ClusterOfferFile], &offer); err != nil {
				t.Fatal(err)
			}
			path := strings.TrimPrefix(offer.URL, "https://"+o.address)
			upgrade := map[string]string{"Connection": "Upgrade", "Upgrade": "berth-tunnel"}
			if code, _ := o.ask(http.MethodGet, path, token, upgrade); code != http.StatusUnauthorized {
				t.Errorf("with the token of a person: %d", code)
			}
			if code, _ := o.ask(http.MethodGet, path+"x", offer.Token, upgrade); code != http.StatusUnauthorized {
				t.Errorf("for another cluster: %d", code)
			}
			o.must("cluster", "delete", "offering")
			if code, _ := o.ask(http.MethodGet, path, offer.Token, upgrade); code != http.StatusGone {
				t.Errorf("after its end: %d", code)
			}
			if left := o.leftovers(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if strings.Contains(o.log.String(), offer.Token) {
				t.Error("its token is in the server's log")
			}
		})
	}
}

// dial connects to the scheduler as a client does.
func (c *connection) dial(t *testing.T) *tls.Conn {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: pairName(t, pair)}
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second}, Config: config}).DialContext(t.Context(), "tcp", strings.TrimPrefix(c.Address, "tls://"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn.(*tls.Conn)
}

// pairName is whom a cluster's certificate is for: head, workers and clients have
// the same.
func pairName(t *testing.T, pair tls.Certificate) string {
	t.Helper()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.DNSNames[0]
}

// ask asks the server by HTTP.
func (o *office) ask(method, path, token string, headers map[string]string) (int, string) {
	o.t.Helper()
	request, err := http.NewRequestWithContext(o.t.Context(), method, "https://"+o.address+path, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := o.client().Do(request)
	if err != nil {
		o.t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}
