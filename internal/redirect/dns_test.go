package redirect

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/berth-run/berth"
)

func message(t *testing.T, m dnsmessage.Message) []byte {
	t.Helper()
	data, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func question(t *testing.T, size uint16) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("x.example."), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}},
	}
	if size > 0 {
		var header dnsmessage.ResourceHeader
		if err := header.SetEDNS0(int(size), dnsmessage.RCodeSuccess, false); err != nil {
			t.Fatal(err)
		}
		m.Additionals = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.OPTResource{}}}
	}
	return message(t, m)
}

// An answer that UDP does not take is asked for again by TCP.
func TestAnswersFitIntoUDP(t *testing.T) {
	long := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true}}
	for range 5 {
		long.Answers = append(long.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("x.example."), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 200)}},
		})
	}
	answer := message(t, long)
	for size, fits := range map[uint16]bool{0: false, 512: false, 4096: true} {
		got := fit(answer, question(t, size))
		var m dnsmessage.Message
		if err := m.Unpack(got); err != nil {
			t.Fatal(err)
		}
		if m.Truncated == fits || m.ID != 7 || !fits && (len(got) > 512 || len(m.Questions) != 1) {
			t.Errorf("asked with %d bytes: %+v", size, m.Header)
		}
	}
}

func TestAQuestionWithoutAnAnswerFails(t *testing.T) {
	var m dnsmessage.Message
	if err := m.Unpack(failure(question(t, 0))); err != nil || m.RCode != dnsmessage.RCodeServerFailure || m.ID != 7 || !m.Response || len(m.Questions) != 1 {
		t.Errorf("%+v, %v", m.Header, err)
	}
}

func FuzzFit(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), 600)
	f.Fuzz(func(t *testing.T, question []byte, size int) {
		if len(question) < 12 || size < 0 || size > 1<<16 {
			return
		}
		fit(make([]byte, size), question)
		failure(question)
	})
}

func TestBypassCovers(t *testing.T) {
	b := berth.ProxyBypass{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Port: 53}
	for to, want := range map[string]bool{"10.1.2.3:53": true, "10.1.2.3:54": false, "11.0.0.1:53": false, "[::ffff:10.1.2.3]:53": true} {
		if got := b.Covers(netip.MustParseAddrPort(to)); got != want {
			t.Errorf("%s: %v", to, got)
		}
	}
}
