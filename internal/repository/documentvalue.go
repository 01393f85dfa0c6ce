package repository

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
)

// quoted finds the end of a text, quotes included, without taking it.
func (p *parser) quoted() ([]byte, error) {
	if p.peek() != '"' {
		return nil, p.wrong("%s; want text in quotes, without white space", excerpt(p.data, p.pos))
	}
	for i := p.pos + 1; i < len(p.data); i++ {
		switch p.data[i] {
		case '\\':
			i++
		case '"':
			return p.data[p.pos : i+1], nil
		}
	}
	return nil, p.wrong("the text has no end")
}

// text reads what is one text in JSON.
func (p *parser) text(v reflect.Value, l limits) error {
	token, err := p.quoted()
	if err != nil {
		return err
	}
	if l.length > 0 && len(token) > 6*l.length+2 { // no character takes more
		return fmt.Errorf("%w: %s: byte %d: %d bytes; at most %d", belfry.ErrLimit, p.place(), p.pos, len(token)-2, l.length)
	}
	text, err := unquoted(token)
	if err != nil {
		return p.wrong("%.70q: %v", token, err)
	}
	switch {
	case isText(v.Type()):
		to, _ := v.Addr().Interface().(encoding.TextUnmarshaler)
		err = to.UnmarshalText(text)
	case v.Type() == byteList:
		var raw []byte
		if raw, err = base64.StdEncoding.AppendDecode(nil, text); err == nil && len(raw) == 0 {
			err = errors.New("is empty; want base64, or no field")
		}
		v.SetBytes(raw)
	default:
		v.SetString(string(text))
	}
	if err != nil {
		return p.wrong("%.70q: %v", token, err)
	}
	switch {
	case v.Type() == timeType:
		err = checkTime(v)
	case !isText(v.Type()):
		err = l.check(v)
	}
	if err != nil {
		return p.located(p.pos, err)
	}
	p.pos += len(token)
	return nil
}

// unquoted is the text of a token.
func unquoted(token []byte) ([]byte, error) {
	text := token[1 : len(token)-1]
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	if !bytes.ContainsFunc(text, func(c rune) bool { return c == '\\' || c < ' ' }) {
		return text, nil
	}
	var s string
	err := json.Unmarshal(token, &s)
	return []byte(s), err
}

// scalar reads a number, or true or false.
func (p *parser) scalar(v reflect.Value) error {
	end := p.pos
	for end < len(p.data) && strings.IndexByte(",]}\n", p.data[end]) < 0 {
		end++
	}
	token, ok := string(p.data[p.pos:end]), true
	switch bits := v.Type(); {
	case v.Kind() == reflect.Bool:
		if token != "true" && token != "false" {
			return p.wrong("%.70q; want true or false", token)
		}
		v.SetBool(token == "true")
	case v.CanInt():
		n, err := strconv.ParseInt(token, 10, bits.Bits())
		v.SetInt(n)
		ok = err == nil
	default:
		n, err := strconv.ParseUint(token, 10, bits.Bits())
		v.SetUint(n)
		ok = err == nil
	}
	if !ok {
		return p.wrong("%.70q; want a whole number in its range", token)
	}
	p.pos = end
	return nil
}
