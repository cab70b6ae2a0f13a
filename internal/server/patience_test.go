package server

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// versions gives a client for each version of HTTP.
func versions(client *http.Client) map[string]*http.Client {
	first := client.Transport.(*http.Transport).Clone()
	first.ForceAttemptHTTP2, first.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	first.TLSClientConfig.NextProtos = []string{"http/1.1"}
	return map[string]*http.Client{"HTTP/2": client, "HTTP/1.1": {Transport: first, Timeout: 20 * time.Second}}
}

const stall = 300 * time.Millisecond

func TestAClientThatTakesNothingIsGivenUp(t *testing.T) {
	ended := make(chan error, 1)
	_, url, client := serving(t, func(c *Config, _ *Server) {
		c.Stall = stall
		c.API = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			data := make([]byte, 1<<20)
			for range 1000 {
				if _, err := w.Write(data); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		})
	})
	for version, client := range versions(client) {
		response, err := client.Get(url + "/api/x") //nolint:noctx // the client has a timeout
		if err != nil {
			t.Fatal(version, err)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%s: a gigabyte went to a client that took nothing", version)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the server still waits", version)
		}
		response.Body.Close()
	}
}

func TestAClientThatSendsNothingIsGivenUpAndASlowOneIsNot(t *testing.T) {
	read := make(chan error, 1)
	_, url, client := serving(t, func(c *Config, _ *Server) {
		c.Stall = stall
		c.API = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			// What takes long after the body was read is no stall of the client.
			<-time.After(2 * stall)
			if err == nil && r.Context().Err() != nil {
				err = errors.New("the request ended while it was answered")
			}
			read <- err
		})
	})
	for version, client := range versions(client) {
		body, feed := io.Pipe()
		go func() {
			for range 6 {
				<-time.After(stall / 3)
				_, _ = feed.Write([]byte("x"))
			}
			feed.Close()
		}()
		if response, err := client.Post(url+"/api/x", "text/plain", body); err != nil { //nolint:noctx // the client has a timeout
			t.Errorf("%s: a slow client: %v", version, err)
		} else {
			response.Body.Close()
		}
		if err := <-read; err != nil {
			t.Errorf("%s: a slow client: %v", version, err)
		}

		body, feed = io.Pipe()
		go func() {
			if response, err := client.Post(url+"/api/x", "text/plain", io.MultiReader(strings.NewReader("x"), body)); err == nil { //nolint:noctx // the client has a timeout
				response.Body.Close()
			}
		}()
		select {
		case err := <-read:
			if err == nil {
				t.Errorf("%s: what never came was read", version)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the server still waits", version)
		}
		feed.Close()
	}
}
