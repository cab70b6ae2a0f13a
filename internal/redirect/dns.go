package redirect

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxQuestions  = 512 // at a time
	questionLimit = 10 * time.Second
	idleLimit     = 8 * time.Second // of a connection to a resolver; they close theirs after 10 s and more
	plainUDP      = 512             // bytes of an answer, unless more is asked for
)

// resolvers are those of the pod, as far as they are IPv4.
func resolvers() []netip.Addr {
	file, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	defer file.Close()
	var found []netip.Addr
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if ip, err := netip.ParseAddr(fields[1]); err == nil && ip.Unmap().Is4() {
			found = append(found, ip.Unmap())
		}
	}
	return found
}

// forwarder answers questions that programs ask resolvers by UDP: they go to
// the pod's own resolvers by TCP, through the proxy.
type forwarder struct {
	s         *sidecar
	resolvers []netip.Addr
	slots     chan struct{}

	mu   sync.Mutex
	idle map[netip.Addr][]idleConn
}

type idleConn struct {
	conn  net.Conn
	since time.Time
}

func newForwarder(s *sidecar) *forwarder {
	return &forwarder{s: s, resolvers: resolvers(), slots: make(chan struct{}, maxQuestions), idle: map[netip.Addr][]idleConn{}}
}

func (f *forwarder) serve(ctx context.Context, listener *net.UDPConn) {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := listener.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 12 {
			continue
		}
		question := append([]byte(nil), buffer[:n]...)
		select {
		case f.slots <- struct{}{}:
		default:
			continue // it is asked again
		}
		go func() {
			defer func() { <-f.slots }()
			ctx, cancel := context.WithTimeout(ctx, questionLimit)
			defer cancel()
			answer := f.ask(ctx, question)
			_, _ = listener.WriteToUDPAddrPort(fit(answer, question), from)
		}()
	}
}

// ask gives a resolver's answer, or one that says that there is none.
func (f *forwarder) ask(ctx context.Context, question []byte) []byte {
	for _, resolver := range f.resolvers {
		for _, fresh := range []bool{false, true} {
			conn, old, err := f.connection(ctx, resolver, fresh)
			if err != nil {
				break
			}
			answer, err := exchange(ctx, conn, question)
			if err == nil {
				f.mu.Lock()
				f.idle[resolver] = append(f.idle[resolver], idleConn{conn, time.Now()})
				f.mu.Unlock()
				return answer
			}
			conn.Close()
			if !old || ctx.Err() != nil {
				break
			}
		}
	}
	return failure(question)
}

// connection returns one to a resolver: an idle one, unless it has to be fresh.
func (f *forwarder) connection(ctx context.Context, resolver netip.Addr, fresh bool) (conn net.Conn, old bool, err error) {
	f.mu.Lock()
	kept := f.idle[resolver]
	for len(kept) > 0 {
		last := kept[len(kept)-1]
		kept = kept[:len(kept)-1]
		if !fresh && time.Since(last.since) < idleLimit {
			f.idle[resolver] = kept
			f.mu.Unlock()
			return last.conn, true, nil
		}
		last.conn.Close()
	}
	f.idle[resolver] = nil
	f.mu.Unlock()
	to := netip.AddrPortFrom(resolver, 53)
	if f.s.direct(to) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp4", to.String())
		return conn, false, err
	}
	server, _, err := f.s.dial(ctx, to.String())
	if err != nil {
		return nil, false, err
	}
	return server, false, nil
}

// exchange asks by TCP, where a message has its length before it.
func exchange(ctx context.Context, conn net.Conn, question []byte) ([]byte, error) {
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...)
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	if len(answer) < 12 || answer[0] != question[0] || answer[1] != question[1] {
		return nil, errors.New("the answer is to another question")
	}
	return answer, nil
}

// failure says that a question can't be answered now.
func failure(question []byte) []byte { return headed(question, dnsmessage.RCodeServerFailure, false) }

// headed is an answer with the question alone.
func headed(question []byte, code dnsmessage.RCode, truncated bool) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(question)
	if err != nil {
		header.ID = binary.BigEndian.Uint16(question)
	}
	questions, _ := parser.AllQuestions()
	header.Response, header.RCode, header.Truncated, header.RecursionAvailable = true, code, truncated, true
	message := dnsmessage.Message{Header: header, Questions: questions}
	out, err := message.Pack()
	if err != nil {
		return question[:12]
	}
	return out
}

// fit makes an answer one that UDP takes: what is too large has to be asked for
// once more, by TCP.
func fit(answer, question []byte) []byte {
	limit := plainUDP
	var parser dnsmessage.Parser
	if _, err := parser.Start(question); err == nil && parser.SkipAllQuestions() == nil && parser.SkipAllAnswers() == nil && parser.SkipAllAuthorities() == nil {
		for {
			header, err := parser.AdditionalHeader()
			if err != nil {
				break
			}
			if header.Type == dnsmessage.TypeOPT {
				limit = max(limit, int(header.Class))
			}
			if parser.SkipAdditional() != nil {
				break
			}
		}
	}
	if len(answer) <= limit {
		return answer
	}
	return headed(question, dnsmessage.RCodeSuccess, true)
}
