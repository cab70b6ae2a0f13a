package compute

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// keysOf is what a member of a cluster has of its keys.
func keysOf(t *testing.T, name string, now time.Time) *tls.Config {
	t.Helper()
	keys, err := newKeys(name, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(keys[berth.ClusterCertFile], keys[berth.ClusterKeyFile])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(keys[berth.ClusterCAFile]) {
		t.Fatal("there is no authority")
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, ServerName: name}
}

// shake has two speak to each other.
func shake(t *testing.T, server, client *tls.Config) (ofServer, ofClient error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(10 * time.Second)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		defer a.Close()
		conn := tls.Server(a, server)
		err := conn.HandshakeContext(t.Context())
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		done <- err
	}()
	conn := tls.Client(b, client)
	if ofClient = conn.HandshakeContext(t.Context()); ofClient == nil {
		_, ofClient = conn.Read(make([]byte, 1)) // whether the server takes it is told behind the handshake
	}
	_ = b.Close()
	return <-done, ofClient
}

func TestWhoHasTheKeysOfAClusterIsSpokenToAndNobodyElse(t *testing.T) {
	one, other := keysOf(t, "one", time.Now()), keysOf(t, "one", time.Now())
	if ofServer, ofClient := shake(t, one, one); ofServer != nil || ofClient != nil {
		t.Errorf("members of a cluster: %v, %v", ofServer, ofClient)
	}
	trusting := other.Clone()
	trusting.InsecureSkipVerify = true // an intruder is not particular
	if ofServer, _ := shake(t, one, trusting); ofServer == nil {
		t.Error("a client of another cluster is taken")
	}
	if _, ofClient := shake(t, other, one); ofClient == nil {
		t.Error("a server of another cluster is taken")
	}
	if ofServer, _ := shake(t, one, &tls.Config{RootCAs: one.RootCAs, ServerName: "one"}); ofServer == nil {
		t.Error("a client without keys is taken")
	}
	old := keysOf(t, "one", time.Now().Add(-keysValid-time.Minute))
	if ofServer, ofClient := shake(t, old, old); ofServer == nil && ofClient == nil {
		t.Error("keys are taken whose time is over")
	}
}

func TestNobodyCanMakeMoreKeysOfACluster(t *testing.T) {
	keys, err := newKeys("one", time.Now())
	if err != nil || len(keys) != 3 {
		t.Fatalf("%d files, %v", len(keys), err)
	}
	block, rest := pem.Decode(keys[berth.ClusterKeyFile])
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil || len(rest) > 0 {
		t.Fatalf("the file has more than a key: %q, %v", rest, err)
	}
	pair, err := tls.X509KeyPair(keys[berth.ClusterCAFile], keys[berth.ClusterKeyFile])
	if err == nil {
		t.Errorf("the key %T is that of the authority %v", private, pair.Leaf.Subject)
	}
	member, _ := pem.Decode(keys[berth.ClusterCertFile])
	if leaf, err := x509.ParseCertificate(member.Bytes); err != nil || leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		t.Errorf("a member may sign: %+v, %v", leaf, err)
	}
}
